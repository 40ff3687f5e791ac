from __future__ import annotations

from benchmarks.report import Aim


def test_aims():
    assert Aim("ms", 50.0, 49.0).met
    assert Aim("ms", 50.0, 51.0).met is False
    assert Aim("times", 2.0, 2.5, least=True).met
    assert Aim("times", 2.0, None, least=True).met is None
