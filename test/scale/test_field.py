import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.field import fit_field
from lotus2_ros.scale.field_tracker import FADE_MOVING, FieldTracker
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.history import PastFrame
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry, Scale

HEIGHT, WIDTH = 120, 200
LINE = Scale(0.5, 0.1, "reference_depth", metric=True, age=0.0)
ROWS, COLUMNS = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
PLANE = 0.1 + 0.6 * ROWS + 0.1 * COLUMNS  # disparity
BEND = 0.3 * torch.sin(3 * COLUMNS) * ROWS  # log of a factor on depth that no line makes
TRUTH = LINE.depth_of(PLANE) * BEND.exp()
CELLS = (48, 80)  # of the field
IMAGE = (255 * torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))).to(torch.uint8)


def sparse(depth, count, seed=0, wrong=0.0):
    """A few measurements, some of them at random depths; and where they are."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(depth.numel(), generator=generator)[:count]
    low, high = depth.aminmax()
    anywhere = low + (high - low) * torch.rand(count, generator=generator)
    values = torch.where(torch.arange(count) < wrong * count, anywhere, depth.flatten()[chosen])
    return Reference(torch.full_like(depth, torch.nan).flatten().index_put((chosen,), values).view(depth.shape))


def with_field(disparity, reference, line=LINE, image=None):
    found = fit_field(RelativeGeometry(disparity, image), line, reference)
    return replace(line, local=found.log_factor, farthest=found.farthest), found


def error(depth, truth):
    return float((depth / truth - 1).abs().mean())


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.05, 5), shift=st.floats(0.02, 1), tilt=st.floats(-0.5, 0.5), count=st.integers(20, 400),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_where_the_line_is_exact_the_field_is_zero(scale, shift, tilt, count, seed):
    disparity = 0.5 + 0.4 * (ROWS - 0.5) + tilt * (COLUMNS - 0.5)
    line = replace(LINE, scale=scale, shift=shift)
    found = fit_field(RelativeGeometry(disparity), line, sparse(line.depth_of(disparity), count, seed))
    assert found.log_factor.abs().max() < 1e-4 and found.error < 1e-4


@pytest.mark.parametrize(("wrong", "most"), [(0.0, 0.25), (0.2, 0.35)])
def test_between_the_points_the_field_follows_them(wrong, most):
    scale, found = with_field(PLANE, sparse(TRUTH, 200, wrong=wrong))
    assert error(scale.depth_of(PLANE), TRUTH) < most * error(LINE.depth_of(PLANE), TRUTH)
    assert found.error < error(LINE.depth_of(PLANE), TRUTH)


def test_two_surfaces_with_different_residuals_keep_their_edge():
    disparity = torch.where(COLUMNS < 0.5, 0.2, 0.8) + 0.02 * ROWS
    truth = LINE.depth_of(disparity) * torch.where(COLUMNS < 0.5, 1.3, 0.8)
    scale, _ = with_field(disparity, sparse(truth, 200))
    relative = (scale.depth_of(disparity) / truth - 1).abs()
    assert relative.mean() < 0.02
    # Two pixels on either side share a cell's bilinear ramp; no more than a few cells feel the other surface.
    assert relative[:, : WIDTH // 2 - 5].max() < 0.06 and relative[:, WIDTH // 2 + 5 :].max() < 0.06


def test_there_are_no_pits_around_points():
    """The surface at a point is as smooth as between points: the field may not be pulled to each alone."""
    generator = torch.Generator().manual_seed(3)
    noisy = TRUTH * (1 + 0.01 * torch.randn(TRUTH.shape, generator=generator))
    _, found = with_field(PLANE, sparse(noisy, 200))
    log_factor = found.log_factor
    around = F.avg_pool2d(log_factor[None], 3, 1)[0]
    assert (log_factor[1:-1, 1:-1] - around).abs().max() < 0.02


@settings(max_examples=25, deadline=None)
@given(count=st.integers(5, 30), seed=st.integers(0, 99))
def test_few_points_that_say_nothing_leave_the_line(count, seed):
    """Noise that no neighbor shares: the field may not be much worse than the line."""
    line = LINE.depth_of(PLANE)
    noise = 0.1 * torch.randn(line.shape, generator=torch.Generator().manual_seed(seed))
    scale, _ = with_field(PLANE, sparse(line * noise.exp(), count, seed))
    assert error(scale.depth_of(PLANE), line) < 0.1


def test_between_few_points_surfaces_have_the_slope_of_the_normals():
    """A wall that the model bends: its normals are right."""
    camera = Camera.from_intrinsics(WIDTH, HEIGHT, 150.0, 130.0, 70.0, 80.0)
    truth = LINE.depth_of(PLANE)  # a plane, because its inverse depth is linear in the image
    bent = (BEND.exp() / truth - LINE.shift) / LINE.scale
    plane = torch.linalg.lstsq(camera.rays.reshape(-1, 3), (1 / truth).reshape(-1, 1)).solution[:, 0]
    normals = (-plane / plane.norm()).expand(HEIGHT, WIDTH, 3)
    errors = []
    for known in (None, normals):
        found = fit_field(RelativeGeometry(bent, None, known, camera), LINE, sparse(truth, 30))
        errors.append(error(replace(LINE, local=found.log_factor).depth_of(bent), truth))
    assert errors[1] < 0.8 * errors[0]


def test_the_points_of_a_wall_do_not_lift_the_floor_before_it():
    """The model blurs the crease between them; its normals are right."""
    camera = Camera.from_intrinsics(WIDTH, HEIGHT, 150.0, 130.0, 70.0, 50.0)
    floor, wall = camera.rays @ torch.tensor([0.0, 0.8, 0.05]), torch.full((HEIGHT, WIDTH), 0.4)  # inverse depth
    is_floor, truth = floor > wall, 1 / torch.maximum(floor, wall)
    blurred = F.avg_pool2d(1 / truth[None], 31, 1, 15, count_include_pad=False)[0]
    up, toward = F.normalize(torch.tensor([0.0, -0.8, -0.05]), dim=0), torch.tensor([0.0, 0.0, -1.0])
    normals = torch.where(is_floor[..., None], up, toward)
    frame = RelativeGeometry((blurred - LINE.shift) / LINE.scale, None, normals, camera)
    errors = []
    for seed in range(3):
        found = fit_field(frame, LINE, sparse(truth, 100, seed))
        depth = replace(LINE, local=found.log_factor).depth_of(frame.disparity)
        errors.append(error(depth[is_floor], truth[is_floor]))
    assert sum(errors) / 3 < 0.008  # by the slopes of the normals alone it is 0.018


def test_many_points_make_the_edges_sharper():
    disparity = 0.5 + 0.02 * ROWS  # the model does not see the edge
    truth = LINE.depth_of(disparity) * torch.where(COLUMNS < 0.5, 1.3, 0.8)
    errors = []
    for count in (200, 4000):
        scale, _ = with_field(disparity, sparse(truth, count))
        errors.append(error(scale.depth_of(disparity), truth))
    assert scale.local.shape == (96, 160) and errors[1] < 0.4 * errors[0]


def test_the_field_goes_on_when_the_number_of_points_changes():
    few, many = sparse(TRUTH, 300), sparse(TRUTH, 4000)
    for references in ([few, many, None], [many, few, None]):
        scale = tracked(references, [1, 1, 1])
        assert error(scale.depth_of(PLANE), TRUTH) < 0.25 * error(LINE.depth_of(PLANE), TRUTH)


def test_far_from_all_points_the_field_fades():
    near = torch.where(COLUMNS < 0.1, TRUTH * 1.3, torch.nan)
    _, found = with_field(PLANE, Reference(near))
    assert found.log_factor[:, -1].abs().max() < found.log_factor[:, 0].abs().max() - 0.05


def test_what_the_line_puts_beyond_infinity_is_where_points_say():
    bent = replace(LINE, scale=0.8, shift=-0.2)
    assert bent.depth_of(PLANE).isnan().any()
    scale, _ = with_field(PLANE, sparse(TRUTH, 400), line=bent)
    depth = scale.depth_of(PLANE)
    far = bent.depth_of(PLANE).isnan() & depth.isfinite()
    assert far.any() and error(depth[far], TRUTH[far]) < 0.2


def test_without_points_near_what_is_beyond_infinity_stays_invalid():
    scale = replace(LINE, shift=-0.2, local=torch.zeros(6, 10), farthest=5.0)
    depth = scale.depth_of(PLANE)
    torch.testing.assert_close(depth, replace(scale, local=None).depth_of(PLANE), equal_nan=True)


def test_the_field_helps_and_its_error_is_told():
    prediction, config = RelativeGeometry(PLANE, IMAGE), ScaleConfig()
    scale = ScaleFilter().align(prediction, sparse(TRUTH, 200), config)
    line = replace(scale, local=None)
    assert error(scale.depth_of(PLANE), TRUTH) < 0.5 * error(line.depth_of(PLANE), TRUTH)
    assert 0 < scale.reference_error < error(line.depth_of(PLANE), TRUTH)
    assert math.isnan(ScaleFilter().align(prediction, None, config).reference_error)


def test_a_standing_camera_carries_the_field():
    scale_filter, config = ScaleFilter(), ScaleConfig(max_age=5.0)
    for number in range(5):
        stamp = 0.1 * number
        first = scale_filter.align(RelativeGeometry(PLANE, IMAGE, stamp=stamp), sparse(TRUTH, 200), config)
    later = scale_filter.align(RelativeGeometry(PLANE, IMAGE, stamp=3.0), None, config)
    torch.testing.assert_close(later.local, first.local)


def tracked(references, agrees):
    """The scale after a reference each 0.1 s; whether depth is as before in each frame of a static camera."""
    tracker = FieldTracker()
    for number, (reference, agreement) in enumerate(zip(references, agrees, strict=True)):
        still = torch.ones(CELLS)
        tracker.carry(still, agreement * still, 0.1 * number)
        if reference is not None:
            tracker.add(PastFrame(RelativeGeometry(PLANE), LINE), reference, still, 0.1 * number)
    return tracker.apply(LINE)


def test_depth_that_flickers_does_not_shake_the_field():
    reference = sparse(TRUTH, 200)
    torch.testing.assert_close(
        tracked([reference, None, None], [1, 0, 1]).local, tracked([reference, None, None], [1, 1, 1]).local
    )


def test_what_came_unnoticed_is_believed_after_a_few_references():
    old, new = sparse(TRUTH, 200), sparse(LINE.depth_of(PLANE), 200)
    noticed, missed = (
        float(tracked([old] * 20 + [new] * 8, [1] * 20 + [agrees] + [1] * 7).local.abs().mean()) for agrees in (0, 1)
    )
    assert noticed < 0.5 * missed


def test_a_moving_camera_soon_forgets_the_field():
    tracker = FieldTracker()
    tracker.add(PastFrame(RelativeGeometry(PLANE), LINE), sparse(TRUTH, 200), None, 0.0)
    before = tracker.apply(LINE).local
    tracker.carry(None, None, FADE_MOVING)
    torch.testing.assert_close(tracker.apply(LINE).local, before / math.e)
    tracker.carry(torch.zeros_like(before), torch.ones_like(before), 10 * FADE_MOVING)
    assert tracker.apply(LINE).local is None


def test_a_standing_camera_averages_the_fields():
    tracker, generator = FieldTracker(), torch.Generator().manual_seed(0)
    fields = []
    for number in range(20):
        noisy = TRUTH * (1 + 0.05 * torch.randn(TRUTH.shape, generator=generator))
        still = tracker.apply(LINE).local
        still = None if still is None else torch.ones_like(still)
        tracker.carry(still, still, 0.1 * number)
        tracker.add(PastFrame(RelativeGeometry(PLANE), LINE), sparse(noisy, 200, seed=number), still, 0.1 * number)
        fields.append(tracker.apply(LINE).local)
    changes = [(after - before).abs().mean() for before, after in pairwise(fields)]
    assert changes[-1] < 0.2 * changes[0]


def test_the_camera_height_has_no_field():
    """Its scale comes from no points; a field of an old reference would say otherwise."""
    scale_filter = ScaleFilter()
    prediction = RelativeGeometry(PLANE, IMAGE)
    assert scale_filter.align(prediction, sparse(TRUTH, 200), ScaleConfig()).local is not None
    scale = scale_filter.align(replace(prediction, stamp=0.1), None, ScaleConfig(source="none"))
    assert scale.local is None and math.isnan(scale.reference_error)


def test_the_field_can_be_turned_off():
    scale = ScaleFilter().align(RelativeGeometry(PLANE, IMAGE), sparse(TRUTH, 200), ScaleConfig(local_field=False))
    assert scale.metric and scale.local is None and math.isnan(scale.reference_error)


def test_details_smaller_than_a_cell_are_the_disparitys_own_or_left_out():
    bump = (31, 57)  # not at the middle of a cell
    disparity = PLANE.clone()
    disparity[bump] *= 1.5
    scale = replace(LINE, local=torch.full(CELLS, 0.2), farthest=100.0)
    detailed = replace(scale, is_detailed=True).depth_of(disparity)
    torch.testing.assert_close(detailed, math.exp(0.2) * LINE.depth_of(disparity), rtol=1e-3, atol=0)
    smooth = math.exp(0.2) * LINE.depth_of(PLANE)
    torch.testing.assert_close(scale.depth_of(disparity)[bump], smooth[bump], rtol=0.01, atol=0)
