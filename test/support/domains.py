"""DDS domains, one for each test that needs one."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Below 102 the ports of a domain are not in the range that Linux gives to other programs.
COUNT = 101
LOCKS = Path(tempfile.gettempdir())
# Seconds after a test in which the programs that it killed are still believed to be there, and a little more.
BELIEVED = 25.0
_numbers = itertools.count(os.getpid())  # the domain used longest ago comes next


@contextmanager
def claimed_domain() -> Iterator[int]:
    """A domain that no other test of this user has or had a moment ago, in this run or another one on this machine."""
    for rest in (BELIEVED,) * COUNT + (0.0,) * COUNT:
        domain = 1 + next(_numbers) % COUNT
        with (LOCKS / f"lotus2-test-{os.getuid()}-domain-{domain}").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            lock.seek(0)
            if time.time() < float(lock.read() or 0) + rest:
                continue
            try:
                yield domain
            finally:
                lock.truncate(0)
                lock.write(str(time.time()))
            return
    raise RuntimeError(f"expected one of {COUNT} DDS domains to be free")
