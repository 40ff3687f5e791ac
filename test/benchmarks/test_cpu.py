from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_cpu_bench_compares_the_same_results(bench):
    printed = bench("benchmarks.cpu", "--threads", "1", "--rounds", "1", "--engines", "plain,torch")
    assert "| 1 thread, wall ms | plain diffusers | torch |" in printed
    assert "| 640x480 image to both |" in printed
