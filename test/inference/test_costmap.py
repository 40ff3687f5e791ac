"""A drive toward a wall and a chair, and what a costmap's voxel layer makes of the clouds."""

import math

import numpy as np
import pytest
import torch

from lotus2_ros.config import CloudConfig, ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.inference.clouds import cloud_of
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.model.engine.device import Stopwatch
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry

CAMERA = Camera.from_fov(160, 120, 70.0)
PERIOD, SPEED, CAMERA_HEIGHT = 0.2, 0.5, 0.4  # seconds, m/s, meters
# Boxes from low to high corner, meters; x forward, y left, z up. The camera starts at x = 0.
WALL = (5.0, -9.0, 0.0), (5.2, 9.0, 4.0)
CHAIR = (
    ((2.5, -0.3, 0.4), (2.9, 0.1, 0.45)),  # seat
    ((2.85, -0.3, 0.45), (2.9, 0.1, 0.9)),  # back
    *(((x, y, 0.0), (x + 0.05, y + 0.05, 0.4)) for x in (2.5, 2.85) for y in (-0.3, 0.05)),  # legs
)
FRAMES, GONE = 10, 5  # and the frame in which the chair is taken away
CELL = 0.1  # meters
LOW, HIGH, MARK_RANGE, CLEAR_RANGE = 0.1, 1.5, 6.0, 7.0
SIZE, MIDDLE = (70, 60, 20), 30  # of the layer in cells; y = 0 is in its middle
TO_WORLD = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # from the optical frame


class VoxelLayer:
    """Marks the voxels of points and clears those that a ray passes, as Nav2's layer of this name does."""

    def __init__(self):
        self.marked = np.zeros(SIZE, bool)

    def clear(self, points, origin):
        distance = np.linalg.norm(points - origin, axis=1)
        for along in np.arange(0, CLEAR_RANGE, 0.5 * CELL):
            passes = along < distance - CELL
            self.marked[cells(origin + (points[passes] - origin) * (along / distance[passes])[:, None])] = False

    def mark(self, points, origin):
        near = np.linalg.norm(points - origin, axis=1) < MARK_RANGE
        self.marked[cells(points[near & (points[:, 2] > LOW) & (points[:, 2] < HIGH)])] = True

    def nearest(self, low, high):
        """Smallest x of the marked voxels with y between these limits; inf without one."""
        x = np.nonzero(self.marked[:, round(low / CELL) + MIDDLE : round(high / CELL) + MIDDLE].any((1, 2)))[0]
        return float(x[0] * CELL) if len(x) else math.inf


def cells(points):
    """The indices of the voxels of points (N, 3) that lie in the layer."""
    index = np.floor(points / CELL).astype(int) + np.array([0, MIDDLE, 0])
    return tuple(index[((index >= 0) & (index < SIZE)).all(1)].T)


def render(x, boxes):
    """Depth (H, W) and normals from x, by slabs of boxes and the floor."""
    origin = torch.tensor([x, 0.0, CAMERA_HEIGHT])
    directions = CAMERA.rays @ TO_WORLD.T
    depth = torch.where(directions[..., 2] < 0, -CAMERA_HEIGHT / directions[..., 2], torch.inf)
    normals = torch.tensor([0.0, 0, 1]).expand(*depth.shape, 3).clone()
    for low, high in boxes:
        near, far = ((torch.tensor(corner) - origin) / directions for corner in (low, high))
        enter, axis = torch.minimum(near, far).max(-1)
        leave = torch.maximum(near, far).amin(-1)
        hit = (enter < leave) & (enter > 0) & (enter < depth)
        depth = torch.where(hit, enter, depth)
        facing = -directions.sign() * torch.nn.functional.one_hot(axis, 3)
        normals = torch.where(hit[..., None], facing, normals)
    return depth, normals @ TO_WORLD


@pytest.fixture(scope="module")
def drive():
    """The voxel layer after each frame, and where the camera was."""
    layer, scale_filter = VoxelLayer(), ScaleFilter()
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(FRAMES):
        x = SPEED * PERIOD * number
        depth, normals = render(x, (WALL, *(CHAIR if number < GONE else ())))
        # As a network predicts it: up to a scale and a shift of each frame, with noise.
        scale, shift = (torch.tensor([0.8, 0.05]) + 0.02 * torch.randn(2, generator=generator)).tolist()
        inverse = 1 / depth
        disparity = (scale * inverse / inverse.max() + shift) * (
            1 + 0.01 * torch.randn(depth.shape, generator=generator)
        )
        image = (255 * inverse / inverse.max()).to(torch.uint8)[..., None].expand(-1, -1, 3).contiguous()
        places = torch.rand(depth.shape, generator=generator) < 0.01
        reference = Reference(torch.where(places, depth, math.nan), PERIOD * number)
        frame = RelativeGeometry(disparity, image, normals, CAMERA, PERIOD * number)
        aligned = scale_filter.align(frame, reference, ScaleConfig(local_field=True), with_sigma=True)
        geometry = Geometry(
            image, CAMERA, "core", aligned, Annotations(disparity, normals=normals), Stopwatch(torch.device("cpu"))
        )
        origin = np.array([x, 0.0, CAMERA_HEIGHT])
        layer.clear(in_world(geometry, x, floor=True), origin)
        layer.mark(in_world(geometry, x, floor=False), origin)
        found.append((x, layer.nearest(-0.3, 0.1), layer.nearest(0.5, 1.5), layer.marked.copy()))
    return found


def in_world(geometry, x, floor):
    """The points (N, 3) of the cloud."""
    cloud = cloud_of(geometry, CloudConfig(max_sigma=0.3), with_floor=floor)[..., :3].flatten(0, 1)
    points = cloud[torch.isfinite(cloud).all(-1)] @ TO_WORLD.T + torch.tensor([x, 0.0, CAMERA_HEIGHT])
    return points.numpy()


def test_wall_and_chair_are_marked_where_they_are(drive):
    for number, (x, before, beside, _) in enumerate(drive):
        if number < GONE:
            assert before - x == pytest.approx(2.5 - x, rel=0.1, abs=CELL)
        assert beside - x == pytest.approx(5.0 - x, rel=0.1, abs=CELL)


def test_the_chair_is_cleared_when_it_is_gone(drive):
    x, before, _, _ = drive[-1]
    assert before - x == pytest.approx(5.0 - x, rel=0.1, abs=CELL)


def test_the_floor_is_not_marked(drive):
    assert not any(marked[: round(2.2 / CELL)].any() for *_, marked in drive)
