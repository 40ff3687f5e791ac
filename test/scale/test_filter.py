import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.gate import GATE
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry

HEIGHT, WIDTH = 96, 128
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 110.0, 105.0, 61.0, 50.0)
CONFIG = ScaleConfig(max_age=1.0, relative_shift=0.2)


def blobs(seed):
    """Smooth (HEIGHT, WIDTH) in [0, 1]."""
    coarse = torch.rand(1, 1, 12, 16, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)


IMAGE = (200 * blobs(0) + 30).to(torch.uint8)[..., None].expand(-1, -1, 3)
ELSEWHERE = (200 * blobs(9) + 30).to(torch.uint8)[..., None].expand(-1, -1, 3)
INVERSE_DEPTH = 0.1 + 0.5 * blobs(1)  # 1.7 to 10 m
DEPTH = 1 / INVERSE_DEPTH


def frame(stamp, scale=0.5, shift=0.1, image=IMAGE, normals=None):
    """What a model says whose disparity is right with this scale and shift."""
    return RelativeGeometry((INVERSE_DEPTH - shift) / scale, image, normals, CAMERA, stamp)


def moved(pixels):
    """The image, moved: a camera that turns, as far as can be told from it."""
    return IMAGE.roll(pixels, dims=1)


def error(prediction, scale):
    """Largest relative error in depth."""
    depth = scale.depth_of(prediction.disparity)
    return float((depth / DEPTH - 1).abs().max())


def test_a_reference_makes_it_metric():
    seen = frame(5.0)
    scale = ScaleFilter().align(seen, Reference(DEPTH, stamp=4.95), CONFIG)
    assert scale.metric and scale.source == "reference_depth" and not scale.note
    assert error(seen, scale) < 1e-4 and scale.age == pytest.approx(0.05)


def test_without_a_reference_the_scale_is_relative():
    scale = ScaleFilter().align(frame(5.0), None, CONFIG)
    assert not scale.metric and scale.source == "none" and math.isnan(scale.age)
    depth = replace(scale, correction=None).depth_of(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(depth, torch.tensor([1.0, 6.0]))


def test_the_last_fit_is_kept_until_it_is_too_old():
    scale_filter = ScaleFilter()
    scale_filter.align(frame(10.0), Reference(DEPTH, stamp=10.0), CONFIG)
    kept = scale_filter.align(frame(10.8), None, CONFIG)
    assert kept.metric and kept.age == pytest.approx(0.8) and kept.source == "reference_depth"
    old = scale_filter.align(frame(11.5), None, CONFIG)
    assert not old.metric and "1.5 s old" in old.note


def test_when_meters_end_nothing_jumps():
    """The relative scale goes on where the metric one was: the cloud in RViz stays where it is."""
    scale_filter, config = ScaleFilter(), replace(CONFIG, relative_shift=0.0)
    scale_filter.align(frame(0.0), Reference(DEPTH, stamp=0.0), config)
    for stamp in (0.5, 1.0, 1.5):
        scale = scale_filter.align(frame(stamp), None, config)
    assert not scale.metric and error(frame(1.5), scale) < 1e-4


@pytest.mark.parametrize("stamp", [3.0, 99.0])
def test_a_clock_that_jumps_forgets_everything(stamp):
    scale_filter = ScaleFilter()
    scale_filter.align(frame(10.0), Reference(DEPTH, stamp=10.0), CONFIG)
    scale = scale_filter.align(frame(stamp), None, CONFIG)
    assert not scale.metric
    assert scale.shift / scale.scale == pytest.approx(CONFIG.relative_shift)


def test_a_camera_cut_forgets_everything():
    scale_filter = ScaleFilter()
    for stamp in (0.0, 0.1):
        scale_filter.align(frame(stamp), Reference(DEPTH, stamp=stamp), CONFIG)
    assert scale_filter.align(frame(0.2), None, CONFIG).metric
    assert not scale_filter.align(frame(0.3, image=ELSEWHERE), None, CONFIG).metric
    again = frame(0.4, scale=2.0, image=ELSEWHERE)
    assert error(again, scale_filter.align(again, Reference(DEPTH, stamp=0.4), CONFIG)) < 1e-4


def test_between_references_a_standing_camera_follows_what_is_still():
    """The model's own scale and shift change from frame to frame; the depth does not."""
    scale_filter = ScaleFilter()
    scale_filter.align(frame(0.0), Reference(DEPTH, stamp=0.0), CONFIG)
    for number, (scale, shift) in enumerate([(0.6, 0.05), (0.45, 0.12), (0.7, -0.1)], start=1):
        seen = frame(0.1 * number, scale, shift)
        got = scale_filter.align(seen, None, CONFIG)
        assert got.metric and error(seen, got) < 1e-3
    alone = ScaleFilter()
    untracked = replace(CONFIG, tracking=False)
    alone.align(frame(0.0), Reference(DEPTH, stamp=0.0), untracked)
    assert error(seen, alone.align(seen, None, untracked)) > 0.2


def test_a_standing_camera_does_not_flicker():
    """What the model says changes here and there, by as much as no scale and shift can undo."""
    scale_filter, untracked = ScaleFilter(), ScaleFilter()
    steady, alone = [], []
    for number in range(30):
        seen = frame(0.1 * number)
        seen = replace(seen, disparity=seen.disparity + 0.01 * (blobs(100 + number) - 0.5))
        steady.append(scale_filter.align(seen, None, CONFIG).depth_of(seen.disparity))
        alone.append(untracked.align(seen, None, replace(CONFIG, tracking=False)).depth_of(seen.disparity))
    flicker, flicker_alone = (torch.stack(depths)[10:].log().std(dim=0).median() for depths in (steady, alone))
    assert flicker < flicker_alone / 5


def test_what_comes_without_being_seen_is_not_held_back():
    """A plain thing before a plain wall: the image is the same, the depth is not, and a planner has to know."""
    scale_filter = ScaleFilter()
    for number in range(10):
        scale_filter.align(frame(0.1 * number), Reference(DEPTH, stamp=0.1 * number), CONFIG)
    seen = frame(1.0)
    near = seen.disparity.clone()
    near[30:60, 40:80] = (1.0 - 0.1) / 0.5  # at one meter
    depth = scale_filter.align(replace(seen, disparity=near), None, CONFIG).depth_of(near)
    torch.testing.assert_close(depth[35:55, 45:75], torch.ones(20, 30), rtol=2e-3, atol=0)


def noisy_reference(stamp):
    generator = torch.Generator().manual_seed(int(1000 * stamp))
    factor = 1 + 0.05 * torch.randn(1, generator=generator)
    return Reference(DEPTH * factor, stamp)


def scales_of(config, images):
    scale_filter = ScaleFilter()
    return torch.tensor(
        [
            scale_filter.align(frame(0.1 * i, image=image), noisy_reference(0.1 * i), config).scale
            for i, image in enumerate(images)
        ]
    )


def test_a_standing_camera_averages_its_references():
    still = [IMAGE] * 40
    tracked, alone = scales_of(CONFIG, still), scales_of(replace(CONFIG, tracking=False), still)
    assert tracked[10:].std() < alone[10:].std() / 3
    assert tracked[-1] == pytest.approx(0.5, rel=0.03)


def test_a_moving_camera_does_not_lag():
    """The scale of what the model says changes by 3 % a frame; averaged over as many frames as standing it would be
    off by half of it.
    """
    scale_filter = ScaleFilter()
    for number in range(15):
        seen = frame(0.1 * number, scale=0.5 * 1.03**number, image=moved(5 * number))
        got = scale_filter.align(seen, Reference(DEPTH, stamp=0.1 * number), CONFIG)
    assert error(seen, got) < 0.02


def test_a_late_reference_corrects_the_present_by_its_own_frame():
    """It belongs to a frame of another scale and shift, and nothing metric was known until it came."""
    scale_filter = ScaleFilter()
    for number, (scale, shift) in enumerate([(0.5, 0.1), (0.6, 0.05), (0.45, 0.12)]):
        assert not scale_filter.align(frame(0.1 * number, scale, shift), None, CONFIG).metric
    seen = frame(0.3, 0.7, -0.1)
    config = replace(CONFIG, reference_slop=0.02)
    got = scale_filter.align(seen, Reference(DEPTH, stamp=0.11), config)
    assert got.metric and got.age == pytest.approx(0.19) and error(seen, got) < 1e-3


def test_a_reference_of_no_remembered_frame_is_not_used():
    scale_filter = ScaleFilter()
    scale_filter.align(frame(5.0), None, CONFIG)
    got = scale_filter.align(frame(5.5), Reference(DEPTH, stamp=4.2), CONFIG)
    assert not got.metric and "1.300 s old" in got.note


def test_one_wrong_reference_is_not_believed_but_three_are():
    scale_filter = ScaleFilter()
    for number in range(4):
        scale_filter.align(frame(0.1 * number), Reference(DEPTH, stamp=0.1 * number), CONFIG)
    wrong = DEPTH * 2 * GATE
    for number in (4, 5):
        got = scale_filter.align(frame(0.1 * number), Reference(wrong, stamp=0.1 * number), CONFIG)
        assert got.metric and error(frame(0.0), got) < 1e-3 and "differs" in got.note
        assert got.age == pytest.approx(0.1 * number - 0.3)
    got = scale_filter.align(frame(0.6), Reference(wrong, stamp=0.6), CONFIG)
    assert error(frame(0.6), got) == pytest.approx(2 * GATE - 1, rel=1e-3) and not got.note


def test_a_reference_that_is_right_near_only_is_not_believed_at_once():
    scale_filter = ScaleFilter()
    for number in range(4):
        scale_filter.align(frame(0.1 * number), Reference(DEPTH, stamp=0.1 * number), CONFIG)
    bent = 1 / (2.2 * INVERSE_DEPTH - 1.2 * INVERSE_DEPTH.quantile(0.95))
    got = scale_filter.align(frame(0.4), Reference(bent, stamp=0.4), CONFIG)
    assert "differs" in got.note and error(frame(0.4), got) < 1e-3


def test_a_fit_that_puts_most_of_the_image_beyond_its_reference_is_refused():
    """It is measured near only, and bent: the far half of the image would lie behind infinity."""
    bent = 1 / (4 * INVERSE_DEPTH - 3 * INVERSE_DEPTH.quantile(0.95))
    got = ScaleFilter().align(frame(0.0), Reference(bent), CONFIG)
    assert not got.metric and "times the range of reference_depth" in got.note and "% of it beyond" in got.note


def test_a_reference_of_one_repeated_value_is_refused():
    got = ScaleFilter().align(frame(0.0), Reference(torch.full_like(DEPTH, 65.535)), CONFIG)
    assert not got.metric and "not one value repeated" in got.note


def test_a_right_reference_after_a_wrong_one_starts_the_count_anew():
    scale_filter = ScaleFilter()
    factors = [1, 1, 1, 3, 1, 3, 3]
    for number, factor in enumerate(factors):
        got = scale_filter.align(frame(0.1 * number), Reference(DEPTH * factor, stamp=0.1 * number), CONFIG)
    assert error(frame(0.0), got) < 1e-3


def test_a_refused_fit_keeps_the_last_one_and_says_why():
    scale_filter = ScaleFilter()
    scale_filter.align(frame(1.0), Reference(DEPTH, stamp=1.0), CONFIG)
    few = torch.full_like(DEPTH, math.nan)
    few[0, :5] = 3.0
    got = scale_filter.align(frame(1.1), Reference(few, stamp=1.1), CONFIG)
    assert got.metric and got.age == pytest.approx(0.1) and "20 points" in got.note


def test_source_none_is_never_metric():
    config = replace(CONFIG, source="none", camera_height=1.0)
    scale_filter = ScaleFilter()
    scale_filter.align(frame(0.0), Reference(DEPTH, stamp=0.0), CONFIG)
    assert not scale_filter.align(frame(0.1), Reference(DEPTH, stamp=0.1), config).metric


def test_what_a_model_of_depths_was_inverted_by_does_not_outlive_a_jump_of_the_clock():
    scale_filter = ScaleFilter()
    scale_filter.align(frame(5.0), None, CONFIG)
    before = scale_filter.depth_shift
    scale_filter.align(frame(5.1), None, CONFIG)
    assert scale_filter.depth_shift is before
    scale_filter.align(frame(1.0), None, CONFIG)
    assert scale_filter.depth_shift is not before
