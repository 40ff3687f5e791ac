"""Where an scale_filter takes its scale from when there is no reference: the height of the camera, and normals."""

from dataclasses import replace

import pytest
import torch

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import DEFAULT_SHIFT, RelativeGeometry

HEIGHT, WIDTH = 96, 128
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 110.0, 105.0, 61.0, 50.0)
CONFIG = ScaleConfig(max_age=1.0, relative_shift=0.2)
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def room_normals():
    """A floor 1.4 m below the camera, a wall 6 m ahead; depth and normals of CAMERA."""
    floor = 1.4 / CAMERA.rays[..., 1].clamp_min(1e-6)
    is_floor = floor < 6
    depth = torch.where(is_floor, floor, 6.0)
    normals = torch.where(is_floor[..., None], torch.tensor([0.0, -1, 0]), torch.tensor([0.0, 0, -1]))
    return depth, normals


def room(stamp, scale=0.5, shift=0.1, normals=True):
    depth, directions = room_normals()
    return RelativeGeometry((1 / depth - shift) / scale, IMAGE, directions if normals else None, CAMERA, stamp)


def test_the_height_of_the_camera_makes_it_metric():
    config = replace(CONFIG, camera_height=1.4)
    got = ScaleFilter().align(room(2.0), None, config)
    assert got.metric and got.source == "camera_height" and got.age == 0
    assert got.scale == pytest.approx(0.5, rel=1e-2) and got.shift == pytest.approx(0.1, abs=2e-3)


def test_a_reference_comes_before_the_height_as_long_as_it_holds():
    depth, _ = room_normals()
    config = replace(CONFIG, camera_height=2.8)  # twice what it is
    scale_filter = ScaleFilter()
    assert scale_filter.align(room(0.0), Reference(depth, stamp=0.0), config).source == "reference_depth"
    kept = scale_filter.align(room(0.5), None, config)
    assert kept.source == "reference_depth" and kept.scale == pytest.approx(0.5, rel=1e-2)
    assert scale_filter.align(room(1.2), None, config).source == "camera_height"


def test_after_a_reference_that_was_refused_other_sources_are_asked():
    """As by a depth camera that looks at a wall or into the sun."""
    config, scale_filter = replace(CONFIG, camera_height=1.4), ScaleFilter()
    blind = Reference(torch.full((HEIGHT, WIDTH), 3.0), stamp=0.0)
    assert not scale_filter.wants_other(blind) and not scale_filter.wants_normals(0.0, blind, config)
    assert not scale_filter.align(room(0.0, normals=False), blind, config).metric
    assert scale_filter.wants_other(blind) and scale_filter.wants_normals(0.1, blind, config)
    got = scale_filter.align(room(0.1), replace(blind, stamp=0.1), config)
    assert got.source == "camera_height" and got.metric
    seeing = Reference(room_normals()[0], stamp=0.2)
    assert scale_filter.align(room(0.2), seeing, config).source == "reference_depth"
    assert not scale_filter.wants_other(seeing)


def test_without_normals_the_height_is_of_no_use_and_says_so():
    got = ScaleFilter().align(room(0.0, normals=False), None, replace(CONFIG, camera_height=1.4))
    assert not got.metric and "expected normals" in got.note


def test_the_normals_give_the_shift():
    config = replace(CONFIG, relative_shift=0.0)
    got = ScaleFilter().align(room(0.0), None, config)
    assert not got.metric and got.source == "normals"
    assert got.shift / got.scale == pytest.approx(0.2, rel=2e-2)
    guessed = ScaleFilter().align(room(0.0, normals=False), None, config)
    assert guessed.source == "none" and guessed.shift / guessed.scale == pytest.approx(DEFAULT_SHIFT)


def test_a_shift_that_comes_later_leaves_near_things_where_they_were():
    """First nothing says how the shift is, then the normals do."""
    config, scale_filter = replace(CONFIG, relative_shift=0.0), ScaleFilter()
    first = scale_filter.align(room(0.0, normals=False), None, config)
    second = scale_filter.align(room(0.1), None, config)
    near = float(room(0.0).disparity.quantile(0.95))
    assert second.source == "normals" and second.shift / second.scale == pytest.approx(0.2, rel=2e-2)
    assert second.scale * near + second.shift == pytest.approx(first.scale * near + first.shift, rel=2e-2)


@pytest.mark.parametrize(
    ("changes", "reference", "wanted"),
    [
        ({"relative_shift": 0.0}, None, True),
        ({"relative_shift": 0.2}, None, False),
        ({"relative_shift": 0.2, "camera_height": 1.0}, None, True),
        ({"relative_shift": 0.2, "camera_height": 1.0, "source": "reference_depth"}, None, False),
        ({"relative_shift": 0.0, "camera_height": 1.0}, Reference(room_normals()[0]), False),
    ],
)
def test_normals_are_wanted_only_for_what_needs_them(changes, reference, wanted):
    assert ScaleFilter().wants_normals(0.0, reference, replace(CONFIG, **changes)) is wanted


def test_normals_are_not_wanted_between_two_references():
    config, scale_filter = replace(CONFIG, relative_shift=0.0, camera_height=1.0), ScaleFilter()
    scale_filter.align(room(0.0), Reference(room_normals()[0], stamp=0.0), config)
    assert not scale_filter.wants_normals(0.5, None, config)
    assert scale_filter.wants_normals(1.5, None, config)


def test_tracking_may_begin_at_any_time():
    scale_filter, config = ScaleFilter(), replace(CONFIG, relative_shift=0.0)
    for number, tracking in enumerate((False, True, False, True)):
        got = scale_filter.align(room(0.1 * number), None, replace(config, tracking=tracking))
        assert got.shift / got.scale == pytest.approx(0.2, rel=2e-2)


def street(stamp, scale=0.5, shift=0.0):
    """The room without a wall: nothing but sky above the horizon, which is more than half of the image."""
    depth = 1.4 / (CAMERA.rays[..., 1] - 0.07).clamp_min(0)
    return RelativeGeometry((1 / depth - shift) / scale, IMAGE, None, CAMERA, stamp), depth


def test_half_a_sky_casts_no_doubt_on_a_fit():
    """Inverse depth is about 0 in most of the image, and a little less or more there is no disagreement."""
    scale_filter = ScaleFilter()
    for number in range(8):
        frame, depth = street(0.1 * number)
        assert (depth > 1e3).float().mean() > 0.5
        wrong = 0.004 * (-1) ** number
        got = scale_filter.align(frame, Reference(1 / (1 / depth + wrong), stamp=0.1 * number), CONFIG)
        assert not got.note


def test_a_relative_scale_stays_positive_after_meters_under_a_sky():
    """The metric fit puts most of the image beyond infinity; when it is too old the relative one goes on from it."""
    scale_filter = ScaleFilter()
    frame, depth = street(0.0)
    lower = depth.clone()
    lower[: HEIGHT // 2 + 20] = torch.nan
    assert scale_filter.align(frame, Reference(1 / (1 / lower - 0.02), stamp=0.0), CONFIG).shift < 0
    for stamp in (0.9, 1.2, 1.5):
        got = scale_filter.align(street(stamp)[0], None, CONFIG)
    assert not got.metric and got.scale > 0 and got.shift / got.scale == pytest.approx(CONFIG.relative_shift)


def points(stamp, factor=1.0, **fields):
    """Depth of the room as the source odometry gives it."""
    depth, _ = room_normals()
    return Reference(factor * depth, stamp, **{"source": "odometry"} | fields)


def test_points_of_odometry_are_as_old_as_the_motion_that_gave_them():
    scale_filter = ScaleFilter()
    assert scale_filter.align(room(1.0), points(1.0, age=0.4), CONFIG).age == pytest.approx(0.4)
    assert scale_filter.align(room(1.5), points(1.5, age=0.9), CONFIG).age == pytest.approx(0.9)
    late = scale_filter.align(room(1.7), points(1.7, age=1.1), CONFIG)
    assert not late.metric and "the points of odometry are 1.1 s old" in late.note


def test_a_refused_odometry_keeps_the_last_fit_and_says_why():
    scale_filter = ScaleFilter()
    scale_filter.align(room(1.0), points(1.0), CONFIG)
    kept = scale_filter.align(room(1.5), points(1.5, problem="it jumps"), CONFIG)
    assert kept.metric and kept.source == "odometry" and kept.age == pytest.approx(0.5) and kept.note == "it jumps"
    lost = scale_filter.align(room(2.2), points(2.2, problem="it jumps"), CONFIG)
    assert not lost.metric and lost.note == "it jumps"


def test_the_height_takes_over_from_a_refused_odometry():
    config = replace(CONFIG, camera_height=1.4)
    scale_filter, refused = ScaleFilter(), points(1.0, problem="it jumps")
    assert scale_filter.wants_normals(1.0, refused, config)
    got = scale_filter.align(room(1.0), refused, config)
    assert got.source == "camera_height" and got.note == "it jumps"


@pytest.mark.parametrize(
    ("better", "worse"), [("reference_points", "odometry"), ("odometry", "metric_model")]
)  # fmt: skip
def test_a_worse_source_waits_until_the_better_one_is_too_old(better, worse):
    config, scale_filter = replace(CONFIG, metric_model="folder"), ScaleFilter()
    scale_filter.align(room(1.0), points(1.0, source=better), config)
    assert not scale_filter.wants(worse, 1.5, config) and scale_filter.wants(better, 1.5, config)
    kept = scale_filter.align(room(1.5), points(1.5, factor=2.0, source=worse), config)
    assert kept.source == better and kept.scale == pytest.approx(0.5, rel=1e-2)
    assert scale_filter.wants(worse, 2.1, config)
    assert scale_filter.align(room(2.1), points(2.1, factor=2.0, source=worse), config).source == worse


def test_a_reference_with_a_shared_error_weighs_less_than_what_is_known():
    sure, doubtful = ScaleFilter(), ScaleFilter()
    for scale_filter, deviation in ((sure, 0.0), (doubtful, 0.15)):
        scale_filter.align(room(1.0), points(1.0), CONFIG)
        scale_filter.align(room(1.1), points(1.1, factor=1.2, deviation=deviation), CONFIG)
    scales = [scale_filter.align(room(1.2), None, CONFIG) for scale_filter in (sure, doubtful)]
    assert scales[1].deviation > 0.15 > 0.05 > scales[0].deviation
    assert abs(scales[1].scale - 0.5) < 0.2 * abs(scales[0].scale - 0.5)
