from __future__ import annotations

import pytest

from benchmarks.ceilings import Ceilings
from benchmarks.rows import floor_ms


def test_floor_is_the_slower_of_products_and_weights():
    ceilings = Ceilings({"bfloat16": 800e12, "float8": 1600e12}, 4e12)
    assert floor_ms(80_000_000_000_000, 0, ceilings, "bfloat16") == pytest.approx(100)
    assert floor_ms(80_000_000_000_000, 0, ceilings, "float8") == pytest.approx(50)
    assert floor_ms(80_000_000_000_000, 0, ceilings, "nf4") == pytest.approx(100)
    assert floor_ms(1, 4_000_000_000, ceilings, "bfloat16") == pytest.approx(1)
