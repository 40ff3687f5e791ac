from __future__ import annotations

BROKEN = """
from benchmarks import fuzz, mutated_messages
mutated_messages.points_to_tensor = lambda message: 1 / 0
exit(fuzz.main())
"""


def test_the_fuzz_driver_counts_its_conversions(bench):
    printed = bench("benchmarks.fuzz", "--seconds", "1", "--seed", "2")
    assert "seed 2, 1 s" in printed and " 0 failures" in printed
    for kind in ("Image", "CompressedImage", "CameraInfo", "PointCloud2"):
        assert f"  {kind}: converted" in printed


def test_the_fuzz_driver_fails_on_an_undocumented_exception(forks):
    """In a process of its own, because it silences stderr."""
    result = forks.run("-c", BROKEN, "--seconds", "20", "--seed", "2", seconds=120)
    assert result.returncode == 1 and "ZeroDivisionError" in result.stdout and "PointCloud2:" in result.stdout
