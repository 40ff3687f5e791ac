"""What the soak judges; the soak itself is `make soak`."""

import pytest

pytest.importorskip("rclpy")

from benchmarks.soak import ACCOUNT, Sample, judge

CLOSED = dict(zip(ACCOUNT, (100, 60, 30, 4, 6), strict=True))


def samples(growth: float = 0.0, threads: int = 0, files: int = 0) -> list[Sample]:
    """Twenty minutes: half grows during the warm-up, as every process does, and then as said."""
    return [
        Sample(t, 500 + min(t, 300) + growth * max(0, t - 300) / 900, 20 + threads * (t > 900), 25 + files * (t > 900))
        for t in range(0, 1201, 10)
    ]


def test_what_is_steady_after_the_warm_up_passes():
    assert judge(samples(), CLOSED, 1200) == []
    assert judge(samples(growth=20.0, threads=2, files=2), CLOSED, 1200) == []


@pytest.mark.parametrize(
    ("change", "named"), [({"growth": 60.0}, "megabytes"), ({"threads": 3}, "threads"), ({"files": 40}, "files")]
)
def test_growth_is_named(change, named):
    (problem,) = judge(samples(**change), CLOSED, 1200)
    assert problem.startswith(f"{named} grew from")


def test_a_frame_without_account_is_a_problem():
    assert judge(samples(), CLOSED | {"dropped": 29}, 1200) == [
        "expected received = processed + dropped + rejected + skipped"
    ]


def test_a_node_that_answered_nothing_does_not_pass():
    nothing = dict.fromkeys(ACCOUNT, 0)
    assert judge(samples(), nothing, 1200) == ["expected processed frames, got none"]
