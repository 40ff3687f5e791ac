"""What the model says of the surfaces at cells and at points."""

import pytest
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.scale import RelativeGeometry, Scale
from lotus2_ros.scale.surface import EDGE_COLOR, EDGE_DEPTH, EDGE_NORMAL, STEEPEST, surface_of_cells, surface_of_points

HEIGHT, WIDTH = 120, 200
CELLS = (24, 40)
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, 150.0, 130.0, 70.0, 80.0)
LINE = Scale(2.0, 0.05, "reference_depth", metric=True)
FAR = torch.tensor(1e-3)
PLANE = torch.tensor([0.1, 0.2, 0.5])  # its product with a ray is inverse depth
INVERSE = CAMERA.rays @ PLANE
FRAME = RelativeGeometry(
    (INVERSE - LINE.shift) / LINE.scale,
    torch.full((HEIGHT, WIDTH, 3), 51, dtype=torch.uint8),
    (-PLANE / PLANE.norm()).expand(HEIGHT, WIDTH, 3),
    CAMERA,
)


def test_on_a_plane_depth_rises_as_the_normals_say():
    cells = surface_of_cells(FRAME, LINE, *CELLS, FAR)
    down, across = torch.gradient(cells.log_depth, dim=(0, 1))
    inside = (slice(2, -2), slice(2, -2))
    torch.testing.assert_close(cells.slope[0][inside], down[inside], atol=2e-3, rtol=0.02)
    torch.testing.assert_close(cells.slope[1][inside], across[inside], atol=2e-3, rtol=0.02)
    assert down[inside].max() < -0.01 and across[inside].max() < -0.005  # the floor is nearer below


def test_nearly_along_a_surface_the_slope_has_a_limit():
    grazing = torch.nn.functional.normalize(torch.tensor([0.0, -1.0, -0.01]), dim=0)
    frame = RelativeGeometry(FRAME.disparity, None, grazing.expand(HEIGHT, WIDTH, 3), CAMERA)
    slope = surface_of_cells(frame, LINE, *CELLS, FAR).slope
    assert torch.isfinite(slope).all() and slope.abs().max() <= STEEPEST


def test_a_point_has_the_depth_of_its_pixel_and_the_slope_of_its_cell():
    cells = surface_of_cells(FRAME, LINE, *CELLS, FAR)
    down, across = torch.tensor([0.1, 0.7]), torch.tensor([0.9, 0.3])
    points = surface_of_points(FRAME, LINE, cells, down, across, FAR)
    rows, columns = (down * HEIGHT).long(), (across * WIDTH).long()
    torch.testing.assert_close(points.log_depth, -INVERSE[rows, columns].log())
    torch.testing.assert_close(points.place, torch.stack((down * CELLS[0], across * CELLS[1])))
    torch.testing.assert_close(points.slope, cells.slope[:, rows // 5, columns // 5])
    torch.testing.assert_close(points.features, cells.features[:, rows // 5, columns // 5], atol=0.05, rtol=0)


@pytest.mark.parametrize("correction", [None, torch.full((48, 80), 0.1)])
def test_depth_is_the_line_with_its_correction_and_at_most_far(correction):
    scale = Scale(0.0, 0.3, "reference_depth", metric=True, correction=correction)
    expected = 0.3 if correction is None else 0.4
    cells = surface_of_cells(FRAME, scale, *CELLS, FAR)
    points = surface_of_points(FRAME, scale, cells, torch.tensor([0.5]), torch.tensor([0.5]), FAR)
    for found in (cells, points):
        torch.testing.assert_close(found.log_depth.exp(), torch.full_like(found.log_depth, 1 / expected))
    beyond = Scale(0.0, -1.0, "reference_depth", metric=True)
    torch.testing.assert_close(surface_of_cells(FRAME, beyond, *CELLS, FAR).log_depth, -FAR.log().expand(CELLS))


def test_features_are_depth_color_and_normals_in_units_of_an_edge():
    cells = surface_of_cells(FRAME, LINE, *CELLS, FAR)
    depth, color, normals = cells.features.split((1, 3, 3))
    torch.testing.assert_close(depth[0], cells.log_depth / EDGE_DEPTH)
    torch.testing.assert_close(color, torch.full((3, *CELLS), 0.2 / EDGE_COLOR))
    torch.testing.assert_close(normals[1], torch.full(CELLS, -0.2 / float(PLANE.norm()) / EDGE_NORMAL))
    torch.testing.assert_close(cells.looks(), torch.cat((cells.place, cells.features)))


def test_without_normals_or_image_there_are_fewer_features():
    cells = surface_of_cells(RelativeGeometry(FRAME.disparity), LINE, *CELLS, FAR)
    assert cells.slope is None
    torch.testing.assert_close(cells.features, cells.log_depth[None] / EDGE_DEPTH)
