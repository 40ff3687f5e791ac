"""How long to wait for another process, on a machine that may be busy."""

from __future__ import annotations

import os

SCALE = "LOTUS2_TIMEOUT_SCALE"


def allowed(seconds: float) -> float:
    """``seconds`` of a quiet machine, in seconds of this one: longer by the load per core, and by LOTUS2_TIMEOUT_SCALE.

    The load is the average of the last minute, so ask again while you wait.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return seconds * max(1.0, load) * float(os.environ.get(SCALE, "1"))
