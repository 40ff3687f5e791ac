import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lotus2_ros.scale.tracker import Tracker, static_weight, thumbnail_size

HEIGHT, WIDTH = 120, 168


def texture(seed=0, cell=6):
    """Smooth blobs: (HEIGHT, WIDTH) between 40 and 200."""
    coarse = torch.rand(1, 1, HEIGHT // cell, WIDTH // cell, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic", align_corners=False)[0, 0]
    return 40 + 160 * smooth.clamp(0, 1)


def camera_image(gray, seed, noise=5.0):
    generator = torch.Generator().manual_seed(seed)
    noisy = gray[..., None] + noise * torch.randn(*gray.shape, 3, generator=generator)
    return noisy.round().clamp(0, 255).to(torch.uint8)


def moved(gray, pixels):
    """The picture, moved to the right by a fraction of a pixel."""
    theta = torch.tensor([[[1.0, 0, -2 * pixels / WIDTH], [0, 1, 0]]])
    grid = F.affine_grid(theta, [1, 1, HEIGHT, WIDTH], align_corners=False)
    return F.grid_sample(gray[None, None], grid, padding_mode="reflection", align_corners=False)[0, 0]


def disparity(seed=1):
    return (texture(seed, cell=12) - 40) / 160


def follow(images, disparities, scale=2.0, shift=0.5):
    """What the last of several frames looks like to a tracker that took what it expected for granted."""
    tracker, registration = Tracker(), None
    for image, seen in zip(images, disparities, strict=True):
        registration = tracker.register(seen, image)
        if registration.scale_shift is not None:
            scale, shift = registration.scale_shift
        tracker.update(scale, shift)
    return registration


@settings(deadline=None, max_examples=20)
@given(gain=st.floats(0.5, 2.0), offset=st.floats(-0.2, 0.2))
def test_still_things_stay_where_they_were(gain, offset):
    """The model's disparity of the same scene comes out gain * d + offset: scale and shift make up for it."""
    seen = disparity()
    registration = follow(
        [camera_image(texture(), seed) for seed in range(3)], [seen, seen, (seen - offset) / gain], scale=2.0, shift=0.5
    )
    assert registration.stationarity == pytest.approx(1, abs=1e-3)
    assert registration.scale_shift == (pytest.approx(2 * gain, rel=1e-3), pytest.approx(0.5 + 2 * offset, abs=1e-3))


def test_one_moving_thing_does_not_change_what_the_rest_says():
    seen, gray = disparity(), texture()
    other, other_gray = seen.clone(), gray.clone()
    other[20:70, 30:80] = 1.0  # something came near
    other_gray[20:70, 30:80] = texture(seed=5)[20:70, 30:80]
    registration = follow([camera_image(g, i) for i, g in enumerate((gray, gray, other_gray))], [seen, seen, other])
    assert registration.stationarity > 0.9
    assert registration.scale_shift == (pytest.approx(2.0, rel=1e-2), pytest.approx(0.5, abs=1e-2))


@pytest.mark.parametrize("pixels", [0.5, 3.0])
def test_a_moving_camera_leaves_nothing_still(pixels):
    """Also a slow one: half a pixel of 168 per frame is a quarter of one of the thumbnail."""
    images = [camera_image(moved(texture(), pixels * i), i) for i in range(8)]
    registration = follow(images, [disparity()] * 8)
    assert registration.stationarity == 0 and registration.scale_shift is None and not registration.scene_cut


@pytest.mark.parametrize("noise", [2.0, 15.0, 40.0])
def test_noise_is_no_motion(noise):
    images = [camera_image(0.5 * texture(), i, noise) for i in range(4)]
    assert follow(images, [disparity()] * 4).stationarity > 0.9


def test_exposure_is_no_motion():
    images = [camera_image(level * texture(), i) for i, level in enumerate((1.0, 1.0, 0.7, 1.2))]
    assert follow(images, [disparity()] * 4).stationarity == pytest.approx(1, abs=1e-3)


def test_a_picture_without_texture_says_nothing_by_itself():
    """Half of the picture is a plain wall; whether it moved is what the other half says."""
    gray = texture()
    gray[:, : WIDTH // 2] = 100.0
    past = F.adaptive_avg_pool2d(gray[None, None], thumbnail_size(HEIGHT, WIDTH, 80))[0, 0] / 100
    now = past.clone()
    now[:, 42:] = past[:, 42:].flip(0)
    weight, stationarity = static_weight(now, past)
    assert stationarity == 0 and not weight.any()


@pytest.mark.parametrize("layout", [0.0, 1.0])
def test_another_place_is_a_cut(layout):
    """Also where both have a dark floor and a bright ceiling."""
    rows = layout * torch.linspace(100, 0, HEIGHT)[:, None]
    images = [camera_image(rows + 0.6 * texture(seed, cell=20), seed) for seed in (0, 0, 9)]
    registration = follow(images, [disparity()] * 3)
    assert registration.scene_cut and registration.scale_shift is None


@pytest.mark.parametrize("noise", [5.0, 40.0])
def test_a_plain_wall_is_no_cut(noise):
    images = [camera_image(torch.full((HEIGHT, WIDTH), 128.0), i, noise) for i in range(6)]
    assert not follow(images, [disparity()] * 6).scene_cut


def test_another_size_is_a_cut():
    tracker = Tracker()
    tracker.register(disparity(), camera_image(texture(), 0))
    tracker.update(1.0, 0.1)
    turned = tracker.register(disparity().T.contiguous(), camera_image(texture().T, 0))
    assert turned.scene_cut
    tracker.update(1.0, 0.1)
    assert tracker.register(disparity().T.contiguous(), camera_image(texture().T, 0)).scale_shift is not None


def test_what_is_remembered_can_be_corrected():
    tracker = Tracker()
    for seed in range(2):
        tracker.register(disparity(), camera_image(texture(), seed))
        tracker.update(2.0, 0.5)
    tracker.transform(3.0, 0.25)
    registration = tracker.register(disparity(), camera_image(texture(), 2))
    assert registration.scale_shift == (pytest.approx(6.0, rel=1e-4), pytest.approx(1.75, rel=1e-4))


def test_disparities_are_quantiles_of_what_is_near():
    tracker, seen = Tracker(), disparity()
    tracker.register(seen, camera_image(texture(), 0))
    tracker.update(1.0, 0.1)
    farther, near = tracker.register(seen, camera_image(texture(), 1)).disparities
    assert farther == pytest.approx(float(seen.quantile(0.75)), abs=0.03)
    assert near == pytest.approx(float(seen.quantile(0.95)), abs=0.05)


@pytest.mark.parametrize(("size", "side", "small"), [((480, 640), 80, (60, 80)), ((640, 480), 80, (80, 60)),
                                                     ((30, 40), 80, (30, 40)), ((3, 2000), 80, (1, 80))])  # fmt: skip
def test_the_small_picture_has_the_same_shape(size, side, small):
    assert thumbnail_size(*size, side) == small
