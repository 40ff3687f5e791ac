"""What the preview shows is where it is, nearest on top, and complete with parts missing."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.view.preview import (
    BACKGROUND,
    Row,
    cloud_view,
    colored,
    depth_edges,
    depth_range,
    save_preview,
    splat,
    view_rotation,
)

HEIGHT, WIDTH = 40, 60
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, fx=50.0, fy=52.0, cx=25.0, cy=22.0)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_splat_from_the_own_viewpoint_gives_the_image_back(image: torch.Tensor) -> None:
    depth = 1 + torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    points = CAMERA.unproject(depth).reshape(-1, 3).double()
    seen = splat(points, image.reshape(-1, 3).long(), CAMERA, radius=0)
    assert torch.equal(seen, image)


def test_the_nearest_point_wins_whatever_the_order() -> None:
    ray = CAMERA.rays[10, 30].double()
    points, colors = torch.stack([ray * 3, ray * 1, ray * 2]), torch.tensor([[9, 9, 9], [200, 100, 50], [1, 1, 1]])
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        seen = splat(points[order], colors[order], CAMERA, radius=1)
        assert seen[10, 30].tolist() == seen[9, 29].tolist() == [200, 100, 50]
        assert seen[12, 30].tolist() == list(BACKGROUND)


def test_points_behind_the_view_are_not_drawn() -> None:
    seen = splat(torch.tensor([[0.0, 0.0, -1.0]]).double(), torch.tensor([[255, 255, 255]]), CAMERA)
    assert (seen == torch.tensor(BACKGROUND, dtype=torch.uint8)).all()


def test_the_view_is_from_the_right_and_from_above() -> None:
    rotation = view_rotation(24.0, 14.0)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(rotation) > 0
    # Seen from the right, what is nearer moves left; seen from above (y is down), it moves down.
    x, y, _ = (rotation @ torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)).tolist()
    assert x < 0 < y


def test_depth_edges_are_both_sides_of_a_jump() -> None:
    depth = torch.ones(4, 6)
    depth[:, 3:] = 2.0
    assert depth_edges(depth)[0].tolist() == [False, False, True, True, False, False]


def test_cloud_view_needs_a_camera_and_a_point(image: torch.Tensor) -> None:
    assert cloud_view(image, torch.ones(HEIGHT, WIDTH), None) is None
    assert cloud_view(image, torch.full((HEIGHT, WIDTH), torch.nan), CAMERA) is None
    seen = cloud_view(image, torch.full((HEIGHT, WIDTH), 2.0), CAMERA)
    assert seen is not None and seen.shape == (HEIGHT, WIDTH, 3)
    assert (seen != torch.tensor(BACKGROUND)).any(dim=-1).float().mean() > 0.3


def test_colors() -> None:
    picture = colored(torch.tensor([[0.0, 1.0, torch.nan]]), 0.0, 1.0, "gray")
    assert picture is not None and picture.tolist() == [[[0, 0, 0], [255, 255, 255], [105, 105, 105]]]
    depth = torch.linspace(1, 2, 1001)
    depth[0], depth[1] = 1e6, torch.inf
    assert depth_range(depth) == pytest.approx((1.022, 1.982), abs=2e-3)
    assert depth_range(torch.full((3,), torch.nan)) == (0.0, 1.0)


def test_preview_is_written_with_parts_missing(tmp_path: Path, image: torch.Tensor) -> None:
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    normals = torch.tensor([0.0, 0.0, -1.0]).expand(HEIGHT, WIDTH, 3)
    rows = [Row("core", image, depth / 4, depth, normals, CAMERA, metric=True), Row("sharp", image)]
    save_preview(tmp_path / "preview.png", rows)
    picture = cv2.imread(str(tmp_path / "preview.png"))
    assert picture.shape[1] > 2000 and 400 < picture.shape[0] < 1000
