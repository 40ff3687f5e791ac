"""The streams and the folder that a process inherits. Imports the standard library only, because it comes first."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def check_surroundings() -> None:
    """Open the standard streams that were closed, and raise OSError if the current folder is gone.

    Without them the next file that is opened has their number, and gets what libraries print. Libraries with native
    code do not load in a folder that was deleted.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    try:
        Path.cwd()
    except OSError:
        raise OSError("expected a current folder, got one that was deleted; cd to another") from None
