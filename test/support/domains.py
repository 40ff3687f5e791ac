"""DDS domains, one for each test that needs one."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Below 102 the ports of a domain are not in the range that Linux gives to other programs.
COUNT = 101
LOCKS = Path(tempfile.gettempdir())
_numbers = itertools.count(os.getpid())  # the domain used longest ago comes next


@contextmanager
def claimed_domain() -> Iterator[int]:
    """A domain that no other test of this user has, in this run or another one on this machine."""
    for number in itertools.islice(_numbers, COUNT):
        domain = 1 + number % COUNT
        with (LOCKS / f"lotus2-test-{os.getuid()}-domain-{domain}").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise RuntimeError(f"expected one of {COUNT} DDS domains to be free")
