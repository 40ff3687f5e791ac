import pytest
import torch

from lotus2_ros.geometry.sky import sky_mask

HEIGHT, WIDTH = 97, 161
HORIZON = 50
UP, TOWARD = torch.tensor([0.0, -1.0, 0.0]), torch.tensor([0.0, 0.0, -1.0])


@pytest.fixture
def street() -> tuple[torch.Tensor, torch.Tensor]:
    """Disparity and normals of a plain up to the horizon, the sky above it, and a house on the left of both."""
    rows = (torch.arange(HEIGHT) - HORIZON).clamp(min=0).float()
    disparity = (rows / (HEIGHT - 1 - HORIZON))[:, None].repeat(1, WIDTH)
    normals = torch.where((rows > 0)[:, None, None], UP, TOWARD).repeat(1, WIDTH, 1)
    disparity[:HORIZON, :41], normals[:HORIZON, :41] = 0.3, torch.tensor([1.0, 0.0, 0.0])
    return disparity, normals


def test_sky_is_what_is_above_the_horizon_and_beside_the_house(street):
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    expected[: HORIZON + 1, 41:] = True
    expected[HORIZON:, :] = False
    mask = sky_mask(*street, shift_over_scale=0.0)
    assert mask.dtype == torch.bool and mask.shape == (HEIGHT, WIDTH)
    # To within the row on the horizon, which is as far, and faces the camera.
    assert torch.equal(mask[:HORIZON], expected[:HORIZON]) and not mask[HORIZON + 1 :].any()


def test_noise_of_the_normals_does_not_hide_the_sky(street, generator):
    disparity, normals = street
    noisy = torch.nn.functional.normalize(normals + 0.15 * torch.randn(normals.shape, generator=generator), dim=-1)
    mask = sky_mask(disparity, noisy, 0.0)
    assert mask[:HORIZON, 50:].float().mean() > 0.9 and not mask[HORIZON + 1 :].any()


def test_a_far_wall_is_not_sky(street):
    """Where the farthest is only four times as far as the nearest, what is far and faces the camera is a wall."""
    assert sky_mask(*street, shift_over_scale=0.3).any()
    assert not sky_mask(*street, shift_over_scale=0.35).any()


@pytest.mark.parametrize("normal", [(0.0, 1.0, 0.0), (0.5, 0.0, -(0.75**0.5)), (0.139, 0.0, -0.99)])
def test_a_surface_at_an_angle_is_not_sky(street, normal):
    disparity, normals = street
    normals[:HORIZON, 41:] = torch.tensor(normal)
    assert not sky_mask(disparity, normals, 0.0).any()


def test_below_something_there_is_no_sky(street):
    disparity, normals = street
    disparity[:9], normals[:9] = 0.5, torch.tensor([0.0, 1.0, 0.0])  # a ceiling
    assert not sky_mask(disparity, normals, 0.0).any()


def test_a_near_thing_in_the_sky_is_cut_out_by_the_pixel(street):
    disparity, normals = street
    disparity[20:30, 100:103] = 0.4  # a lamp, narrower than two cells
    mask = sky_mask(disparity, normals, 0.0)
    assert not mask[20:30, 100:103].any() and mask[:20, 60:].all()
