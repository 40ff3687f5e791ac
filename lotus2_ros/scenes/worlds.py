"""Worlds by number and kind."""

from __future__ import annotations

import numpy as np

from lotus2_ros.scenes import indoors, outdoors
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.world import World

KINDS = ("room", "desk", "corridor", "hall", "street")
SHARES = (0.32, 0.22, 0.1, 0.1, 0.26)
_MAKERS = dict(zip(KINDS, (indoors.room, indoors.desk, indoors.corridor, indoors.hall, outdoors.street), strict=True))


def build(seed: int, kind: str | None = None) -> World:
    """World number `seed`; its kind follows from the seed unless one of KINDS is given."""
    rng = np.random.default_rng([seed, 1])
    chosen = str(rng.choice(KINDS, p=SHARES))
    return _MAKERS[kind or chosen](Builder(rng))
