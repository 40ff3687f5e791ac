"""Worlds by number and kind."""

from __future__ import annotations

import numpy as np

from lotus2_ros.scenes.assets import Assets
from lotus2_ros.scenes.builder import Builder
from lotus2_ros.scenes.indoors import corridor, desk, room
from lotus2_ros.scenes.outdoors import street
from lotus2_ros.scenes.warehouse import warehouse
from lotus2_ros.scenes.world import World

KINDS = ("room", "desk", "corridor", "warehouse", "street")
SHARES = (0.28, 0.26, 0.08, 0.12, 0.26)
_MAKERS = dict(zip(KINDS, (room, desk, corridor, warehouse, street), strict=True))


def build(seed: int, kind: str | None = None, assets: Assets | None = None) -> World:
    """World number `seed`; its kind follows from the seed unless one of KINDS is given. With `assets` it is another."""
    rng = np.random.default_rng([seed, 1])
    chosen = str(rng.choice(KINDS, p=SHARES))
    return _MAKERS[kind or chosen](Builder(rng, assets=assets))
