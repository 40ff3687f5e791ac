from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BROKEN = """
from benchmarks import fuzz, mutated_messages
mutated_messages.points_to_tensor = lambda message: 1 / 0
exit(fuzz.main())
"""


def test_the_fuzz_driver_counts_its_conversions(bench):
    printed = bench("benchmarks.fuzz", "--seconds", "3", "--seed", "2")
    assert "seed 2, 3 s" in printed and " 0 failures" in printed
    for kind in ("Image", "CompressedImage", "CameraInfo", "PointCloud2"):
        assert f"  {kind}: converted" in printed


def test_the_fuzz_driver_fails_on_an_undocumented_exception():
    """In a process of its own, because it silences stderr."""
    command = [sys.executable, "-c", BROKEN, "--seconds", "20", "--seed", "2"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert result.returncode == 1 and "ZeroDivisionError" in result.stdout and "PointCloud2:" in result.stdout
