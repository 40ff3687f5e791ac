import torch

from lotus2_ros.geometry.normals import normalize, normals_to_color


def test_unit_length_and_nan_without_direction():
    normals = normalize(torch.tensor([[0.0, 0.0, -2.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(normals[:2], torch.tensor([[0.0, 0.0, -1.0], [0.6, 0.8, 0.0]]))
    assert torch.isnan(normals[2]).all()


def test_convention_colours():
    """Optical frame: a wall facing the camera is blue, a floor seen from above green, a wall on the right red."""
    normals = torch.tensor([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [torch.nan] * 3])
    assert normals_to_color(normals).tolist() == [[128, 128, 255], [128, 255, 128], [255, 128, 128], [0, 0, 0]]
