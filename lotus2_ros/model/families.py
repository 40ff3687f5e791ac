"""The registry of model families. A new one is a folder beside this file and a line in FAMILIES."""

from __future__ import annotations

from lotus2_ros.model.family import Family
from lotus2_ros.model.lotus.family import LotusFamily
from lotus2_ros.model.lotus2.family import Lotus2Family

FAMILIES: tuple[Family, ...] = (
    Lotus2Family(),
    LotusFamily(),
)

# Formats by family name in bundle.json.
FORMATS = {name: numbers for family in FAMILIES for name, numbers in family.formats.items()}
