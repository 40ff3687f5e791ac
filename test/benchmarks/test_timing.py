from __future__ import annotations

from benchmarks.timing import interleaved_ms, markdown, percentile


def test_percentiles():
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0], 0.5) == 3.0


def test_interleaved_runs_alternate():
    calls: list[str] = []
    times = interleaved_ms({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert set(times) == {"a", "b"}
    assert "".join(calls) == "ab" * (len(calls) // 2)


def test_tables():
    assert markdown(("size", "ms", "GB"), [("a", 1.234, None), ("b", 12.34, 5)]) == (
        "| size | ms | GB |\n|---|---:|---:|\n| a | 1.23 |  |\n| b | 12.3 | 5 |"
    )
