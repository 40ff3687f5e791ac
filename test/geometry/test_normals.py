import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.normals import normalize, normals_from_depth, normals_to_color


def test_unit_length_and_nan_without_direction():
    normals = normalize(torch.tensor([[0.0, 0.0, -2.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(normals[:2], torch.tensor([[0.0, 0.0, -1.0], [0.6, 0.8, 0.0]]))
    assert torch.isnan(normals[2]).all()


def test_convention_colors():
    """Optical frame: a wall facing the camera is blue, a floor seen from above green, a wall on the right red."""
    normals = torch.tensor([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [torch.nan] * 3])
    assert normals_to_color(normals).tolist() == [[128, 128, 255], [128, 255, 128], [255, 128, 128], [0, 0, 0]]


@given(
    normal=st.tuples(*[st.floats(-1, 1)] * 2, st.floats(0.3, 1)).map(
        lambda n: -torch.tensor(n) / torch.tensor(n).norm()
    ),
    distance=st.floats(0.1, 100),
)
def test_normals_of_a_plane(normal, distance):
    camera = Camera.from_intrinsics(20, 14, 600, 500, 4, 11)
    slant = camera.rays @ normal
    depth = -distance / slant  # n . p = -distance: toward the camera
    assume(bool((slant < -0.2).all()))
    normals = normals_from_depth(depth, camera.rays)
    assert torch.isfinite(normals).all()
    assert (normals - normal).norm(dim=-1).max() < 2e-3


def test_normals_stop_at_an_edge_and_at_the_sky():
    camera = Camera.from_intrinsics(20, 14, 60, 50, 4, 11)
    floor = 1.5 / camera.rays[..., 1].clamp_min(1e-6)  # seen from above, below row 11; far before
    depth = torch.where(camera.rays[..., 1] > 0.03, floor, torch.inf)
    depth[:, 5:10] = 2.0  # a wall before it
    depth[3, 7] = torch.nan
    normals = normals_from_depth(depth, camera.rays)
    torch.testing.assert_close(normals[:3, 5:10], torch.tensor([0.0, 0.0, -1.0]).expand(3, 5, 3), atol=1e-4, rtol=0)
    assert torch.isnan(normals[:12, :5]).all() and torch.isnan(normals[3, 7]).all()


def test_normals_do_not_bridge_a_small_step():
    camera = Camera.from_intrinsics(20, 14, 60, 50, 4, 11)
    depth = torch.full((14, 20), 2.0)
    depth[:, 9:] = 2.2
    normals = normals_from_depth(depth, camera.rays)
    torch.testing.assert_close(normals, torch.tensor([0.0, 0.0, -1.0]).expand(14, 20, 3), atol=1e-4, rtol=0)


def test_no_plane_through_a_line_of_pixels():
    camera = Camera.from_intrinsics(20, 14, 60, 50, 4, 11)
    for line in (torch.eye(14, 20).bool(), torch.zeros(14, 20).index_fill(0, torch.tensor(6), 1).bool()):
        depth = torch.where(line, 2.0, torch.nan)
        assert torch.isnan(normals_from_depth(depth, camera.rays)).all()
    depth[7, 10] = 2.0  # one more makes it a plane, where it is near enough
    fitted = normals_from_depth(depth, camera.rays)[6].isfinite().all(-1)
    assert fitted.nonzero().flatten().tolist() == [8, 9, 10, 11, 12]
