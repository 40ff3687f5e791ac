"""What the model says of the surfaces at cells and at points."""

import pytest
import torch

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.grid import Tiles
from lotus2_ros.scale.scale import RelativeGeometry, Scale
from lotus2_ros.scale.surface import EDGE_BRIGHTNESS, EDGE_DEPTH, EDGE_NORMAL, STEEPEST, sample_surfaces

HEIGHT, WIDTH = 120, 200
TILES = Tiles(24, 40, 4)
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


def surfaces(frame=FRAME, scale=LINE, down=(0.5,), across=(0.5,)):
    """At the cells of a grid, and at points."""
    return sample_surfaces(frame, scale, TILES, torch.tensor(down), torch.tensor(across), FAR)


def grid(of_cells):
    return TILES.join(of_cells)


def test_on_a_plane_depth_rises_as_the_normals_say():
    cells, _ = surfaces()
    slope = grid(cells.slope)
    down, across = torch.gradient(grid(cells.log_depth), dim=(0, 1))
    inside = (slice(2, -2), slice(2, -2))
    torch.testing.assert_close(slope[0][inside], down[inside], atol=2e-3, rtol=0.02)
    torch.testing.assert_close(slope[1][inside], across[inside], atol=2e-3, rtol=0.02)
    assert down[inside].max() < -0.01 and across[inside].max() < -0.005  # the floor is nearer below


def test_nearly_along_a_surface_the_slope_has_a_limit():
    grazing = torch.nn.functional.normalize(torch.tensor([0.0, -1.0, -0.01]), dim=0)
    frame = RelativeGeometry(FRAME.disparity, None, grazing.expand(HEIGHT, WIDTH, 3), CAMERA)
    slope = surfaces(frame)[0].slope
    assert torch.isfinite(slope).all() and slope.abs().max() <= STEEPEST


def test_where_no_normal_is_known_there_is_no_slope():
    normals = FRAME.normals.clone()
    normals[:, :100] = torch.nan
    cells, points = surfaces(
        RelativeGeometry(FRAME.disparity, None, normals, CAMERA), down=(0.3, 0.3), across=(0.2, 0.8)
    )
    slope = grid(cells.slope)
    assert (slope[:, :, :20] == 0).all() and (slope[:, :, 20:] != 0).all()
    assert (points.slope[:, 0] == 0).all() and (points.slope[:, 1] != 0).all()


def test_a_cell_has_the_depth_of_the_pixel_in_its_middle():
    cells, _ = surfaces()
    torch.testing.assert_close(grid(cells.log_depth), -INVERSE[2::5, 2::5].log())
    rows, columns = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    torch.testing.assert_close(grid(cells.place), torch.stack((rows, columns)))


def test_a_point_has_the_depth_of_its_pixel_and_the_slope_of_its_cell():
    down, across = torch.tensor([0.1, 0.7]), torch.tensor([0.9, 0.3])
    cells, points = surfaces(down=(0.1, 0.7), across=(0.9, 0.3))
    rows, columns = (down * HEIGHT).long(), (across * WIDTH).long()
    torch.testing.assert_close(points.log_depth, -INVERSE[rows, columns].log())
    torch.testing.assert_close(points.place, torch.stack((down * 24, across * 40)))
    torch.testing.assert_close(points.slope, grid(cells.slope)[:, rows // 5, columns // 5])
    torch.testing.assert_close(points.features, grid(cells.features)[:, rows // 5, columns // 5], atol=0.05, rtol=0)


@pytest.mark.parametrize("correction", [None, torch.full((48, 80), 0.1)])
def test_depth_is_the_line_with_its_correction_and_at_most_far(correction):
    expected = 0.3 if correction is None else 0.4
    for found in surfaces(scale=Scale(0.0, 0.3, "reference_depth", metric=True, correction=correction)):
        torch.testing.assert_close(found.log_depth.exp(), torch.full_like(found.log_depth, 1 / expected))
    for found in surfaces(scale=Scale(0.0, -1.0, "reference_depth", metric=True)):
        torch.testing.assert_close(found.log_depth, -FAR.log().expand_as(found.log_depth))


def test_features_are_depth_brightness_and_normals_in_units_of_an_edge():
    cells, _ = surfaces()
    depth, brightness, normals = cells.features.split((1, 1, 3))
    torch.testing.assert_close(depth[0], cells.log_depth / EDGE_DEPTH)
    torch.testing.assert_close(brightness, torch.full_like(brightness, 51 / EDGE_BRIGHTNESS))
    torch.testing.assert_close(normals[1], torch.full_like(normals[1], -0.2 / float(PLANE.norm()) / EDGE_NORMAL))


@pytest.mark.parametrize("planar", [False, True])
def test_brightness_and_normals_are_those_of_the_pixel_however_they_lie_in_memory(planar):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    normals = torch.nn.functional.normalize(torch.randn(HEIGHT, WIDTH, 3, generator=generator), dim=-1)
    laid = [each.permute(2, 0, 1).contiguous().permute(1, 2, 0) if planar else each for each in (image, normals)]
    cells, points = surfaces(RelativeGeometry(FRAME.disparity, *laid, CAMERA), down=(0.31,), across=(0.77,))
    expected = torch.cat((image[..., 1:2] / EDGE_BRIGHTNESS, normals / EDGE_NORMAL), dim=-1)
    torch.testing.assert_close(grid(cells.features)[1:], expected[2::5, 2::5].permute(2, 0, 1))
    torch.testing.assert_close(points.features[1:, 0], expected[int(0.31 * HEIGHT), int(0.77 * WIDTH)])


def test_without_normals_or_image_there_are_fewer_features():
    for found in surfaces(RelativeGeometry(FRAME.disparity)):
        assert found.slope is None
        torch.testing.assert_close(found.features, found.log_depth[None] / EDGE_DEPTH)
