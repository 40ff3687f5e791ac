from __future__ import annotations

import sys

import pytest

from benchmarks import beside

pytestmark = pytest.mark.slow


def test_beside_bench_has_a_row_for_each_way_of_waiting(monkeypatch, capsys):
    """Of two of them, because each runs in a process of its own."""
    ways = ("sleep at once", "one thread")
    monkeypatch.setattr(beside, "CASES", {name: beside.CASES[name] for name in ways})
    monkeypatch.setattr(sys, "argv", ["beside", "--busy", "0", "--seconds", "0.05"])
    beside.main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[0][1].strip() == "0 busy, median ms" and [row[0].strip() for row in rows[1:]] == [*ways]
    assert all(float(cell) > 0 for row in rows[1:] for cell in row[1:])
