import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lotus2_ros.evaluation.angles import LIMITS, agreement, angular_errors, pooled_angular_error
from lotus2_ros.geometry.camera import Camera


def test_angles_of_known_normals_and_invalid_ones_left_out():
    truth = torch.tensor([[[0.0, 0, -1], [0, -1, 0], [1, 0, 0], [torch.nan] * 3]])
    half = 0.5**0.5
    predicted = torch.tensor([[[0.0, 0, -1], [0, -half, -half], [-1, 0, 0], [0, 0, -1]]])
    torch.testing.assert_close(
        angular_errors(predicted, truth), torch.tensor([0.0, 45, 180]).double(), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("count", [1, 10, 4001])
def test_all_pixels_of_a_data_set_are_pooled(tmp_path, count):
    generator = torch.Generator().manual_seed(count)
    images = [F.normalize(torch.randn(count, 2, 3, generator=generator), dim=-1) for _ in range(3)]
    truths = [F.normalize(image + 0.2 * torch.randn(image.shape, generator=generator), dim=-1) for image in images]
    files, expected = [], []
    for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
        image, truth = image[: number * count // 2 + 1], truth[: number * count // 2 + 1]  # of different sizes
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], angular_errors(image, truth).numpy())
        a, b = image.double().numpy(), truth.double().numpy()
        expected += np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1))).flatten().tolist()
    error = pooled_angular_error(files)
    assert error.pixels == len(expected)
    assert error.mean == pytest.approx(np.mean(expected), rel=1e-6)
    assert error.median == pytest.approx(np.median(expected), rel=1e-6)
    assert error.rmse == pytest.approx(np.sqrt(np.mean(np.square(expected))), rel=1e-6)
    for limit in LIMITS:
        assert error.within[limit] == pytest.approx(np.mean(np.array(expected) < limit), abs=1e-6)


def test_nothing_to_pool_is_refused(tmp_path):
    np.save(tmp_path / "0.npy", np.zeros(0))
    with pytest.raises(ValueError, match="expected pixels with normals"):
        pooled_angular_error([tmp_path / "0.npy"])


def test_depth_and_normals_of_one_plane_agree_and_of_another_do_not():
    camera = Camera.from_intrinsics(40, 24, 30.0, 32.0, 21.0, 10.0)
    normal = F.normalize(torch.tensor([0.2, -0.5, -1.0]), dim=0)
    depth = -2 / (camera.rays @ normal)  # n . p = -2
    assert depth.min() > 0
    assert float(agreement(depth, normal.expand(24, 40, 3), camera).max()) < 0.1
    turned = F.normalize(torch.tensor([0.2, 0.5, -1.0]), dim=0)
    angle = float(torch.rad2deg(torch.acos(normal @ turned)))
    assert float(agreement(depth, turned.expand(24, 40, 3), camera).mean()) == pytest.approx(angle, abs=0.1)
