import pytest
import torch

from lotus2_ros.evaluation.flicker import FlickerFrame, flicker
from lotus2_ros.geometry.camera import Camera

CAMERA = Camera.from_intrinsics(32, 24, 25.0, 26.0, 14.0, 13.0)


def moving(error, frames=4):
    """A wall at z = 3 that the camera comes up to, sideways as well; depth off by the factors error(frame, world x)."""
    found = []
    for number in range(frames):
        position = torch.tensor([0.12, 0.0, 0.3]).double() * number
        truth = torch.full((24, 32), 3.0) - float(position[2])
        x = CAMERA.unproject(truth)[..., 0] + float(position[0])
        found.append(FlickerFrame(truth * error(number, x), truth, CAMERA, torch.eye(3).double(), position))
    return found


def test_what_is_exact_or_wrong_by_one_factor_does_not_flicker():
    assert flicker(moving(lambda number, x: 1.0)) == pytest.approx(0, abs=1e-6)
    assert flicker(moving(lambda number, x: 1.3)) == pytest.approx(0, abs=1e-6)


def test_a_factor_that_changes_from_frame_to_frame_is_its_change():
    assert flicker(moving(lambda number, x: 1.1 ** (number % 2))) == pytest.approx(0.0953, abs=1e-3)


def test_errors_that_stay_with_a_place_do_not_flicker_and_those_that_stay_with_a_pixel_do():
    of_places = flicker(moving(lambda number, x: torch.exp(0.3 * x)))
    column = torch.arange(32).expand(24, 32)
    of_pixels = flicker(moving(lambda number, x: torch.exp(0.3 * column / 10)))
    assert of_places < 0.01 and of_pixels > 4 * of_places


def test_what_comes_into_view_does_not_count():
    frames = moving(lambda number, x: 1.0, frames=2)
    hidden = frames[0].truth.clone()
    hidden[:, :10] = 1.0  # something that is gone in the next frame
    wrong = frames[0].depth.clone()
    wrong[:, :10] = 7.0
    first = FlickerFrame(wrong, hidden, CAMERA, frames[0].rotation, frames[0].position)
    assert flicker([first, frames[1]]) == pytest.approx(0, abs=1e-6)
