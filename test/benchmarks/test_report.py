from __future__ import annotations

import json
from pathlib import Path

from benchmarks.aims import Aim
from benchmarks.report import Report


def test_aims():
    assert Aim("ms", 50.0, 49.0).met
    assert Aim("ms", 50.0, 51.0).met is False
    assert Aim("times", 2.0, 2.5, least=True).met
    assert Aim("times", 2.0, None, least=True).met is None


def test_a_part_that_fails_is_noted_and_what_is_known_is_on_disk(tmp_path: Path) -> None:
    report = Report("a card", tmp_path, has_aims=True)
    report.operators.append(("product", "int8", 1.0, 2.0))
    assert report.attempt("core loop", lambda: report.note("begun"))
    assert not report.attempt("batch", lambda: 1 / 0)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["notes"] == ["begun", "batch: failed: division by zero"] and found["operators"]
    assert found["aims"] and all(aim["met"] is None for aim in found["aims"])
