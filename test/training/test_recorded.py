import numpy as np
import pytest
import torch

from lotus2_ros.training.batches import Batches
from lotus2_ros.training.config import RecordedConfig
from lotus2_ros.training.recorded import load

FRAME = "ai_001_002/images/scene_cam_00_{}/frame.{:04d}.{}"
STREET = "Scene20/clone/frames/{0}/Camera_1/{0}_00007.{1}"


def config(root, **weights):
    sizes = {"hypersim": (24, 32), "virtual_kitti": (16, 48)}
    entries = [
        {"name": name, "folder": root, "size": sizes[name], "weight": weight} for name, weight in weights.items()
    ]
    return RecordedConfig(source="recorded", sets=entries)


@pytest.fixture
def street(write):
    """A road that comes nearer from row to row, below a building on the left and the sky."""
    rows = np.arange(375)[:, None] * np.ones(1242)
    depth = np.where(rows > 200, 12000 / np.maximum(rows - 180, 1), 65535)  # centimeters
    depth[:201, :600] = 6000
    write.png16(STREET.format("depth", "png"), depth)
    write.rgb(STREET.format("rgb", "jpg"), np.repeat((rows / 2)[..., None], 3, axis=2).astype(np.uint8))


def write_room(write, number, distance, normals):
    write.plain(FRAME.format("final_preview", number, "tonemap.jpg"), 48, 64)
    write.hdf5(FRAME.format("geometry_hdf5", number, "depth_meters.hdf5"), distance)
    write.hdf5(FRAME.format("geometry_hdf5", number, "normal_cam.hdf5"), normals)


def test_the_sky_counts_in_depth_outside_its_quantiles_and_has_no_normal(write, street):
    (group,) = load(config(write.root, virtual_kitti=1.0))
    image, depth, valid, shift = group.read([0], "depth")
    assert image.shape == depth.shape == (1, 3, 16, 48) and valid.shape == (1, 1, 16, 48) and valid.all()
    assert shift.shape == (1,) and 0 < float(shift) < 1
    assert (depth[0, :, 0, 30:] == -1).all()
    # With the sky in the quantiles 60 m would be as far from it as 1/60 of the nearest is from 0.
    building = depth[0, 0, :7, :20]
    assert (building < -0.999).all()
    assert (depth[0, 0, 8:].diff(dim=0) > 0).all() and depth[0, 0, -1, 0] > 0.9
    _, _, valid, _ = group.read([0], "normals")
    assert not valid[0, 0, :7, 26:].any() and valid[0, 0, :6, :20].all() and valid[0, 0, 9:].all()


def test_images_are_low_passed_and_truth_is_not(write):
    """Stripes of one pixel average to gray; a step in the truth stays one, at the same place."""
    distance, normals = np.full((48, 64), 2.0), np.tile(np.float32([0, 0, 1]), (48, 64, 1))
    distance[:, 32:] = 8.0
    normals[:, 32:] = -1, 0, 0
    write_room(write, 0, distance, normals)
    stripes = np.zeros((48, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    # What is in a file is told by its content, and JPEG would blur the stripes.
    lossless = FRAME.format("final_preview", 0, "tonemap.png")
    write.rgb(lossless, stripes)
    write.path(lossless).rename(write.path(FRAME.format("final_preview", 0, "tonemap.jpg")))
    (group,) = load(config(write.root, hypersim=1.0))
    image, annotation, valid, _ = group.read([0], "normals")
    assert image[..., 1:-1].abs().max() < 0.15 and valid.all()
    left, right = torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])  # toward the camera; to the model's left
    assert (annotation[0, :, :, :16] == left[:, None, None]).all()
    assert (annotation[0, :, :, 16:] == right[:, None, None]).all()
    _, depth, _, shift = group.read([0], "depth")
    assert (depth[..., :16] > depth[..., 16:].max() + 1).all()
    assert 0.25 < float(shift) < 2 / (8 - 2)  # 8 m against 2 m and, along z off the axis, less


def test_batches_are_of_one_set_each_as_often_as_its_weight_says(write, street):
    write_room(write, 0, np.linspace(1, 4, 48 * 64).reshape(48, 64), np.tile(np.float32([0.6, 0, 0.8]), (48, 64, 1)))
    groups = load(config(write.root, hypersim=0.9, virtual_kitti=0.1))
    batches = Batches(groups, ["normals"], 2, multiple=8, jitter=False, seed=3)
    made = [batches[number] for number in range(30)]
    rooms = [batch for batch in made if batch.image.shape == (2, 3, 24, 32)]
    assert {tuple(batch.image.shape) for batch in made} == {(2, 3, 24, 32), (2, 3, 16, 48)}
    assert 22 <= len(rooms) <= 29
    # x to the left in the model's axes; a mirrored view has the other sign. Colors stay as they are.
    signs = {float(batch.annotation[:, 0].mean().sign()) for batch in rooms}
    assert signs == {-1.0, 1.0}
    assert all(torch.equal(batch.image[0, :, 3, 3], rooms[0].image[0, :, 3, 3]) for batch in rooms)
    again = batches[7]
    assert torch.equal(again.image, made[7].image) and torch.equal(again.annotation, made[7].annotation)


def test_what_is_not_there_is_named(write, street):
    with pytest.raises(FileNotFoundError, match="expected ai_"):
        load(config(write.root, hypersim=1.0))
    write.png16(STREET.format("depth", "png"), np.full((375, 1242), 65535))
    (group,) = load(config(write.root, virtual_kitti=1.0))
    with pytest.raises(ValueError, match="Camera_1/rgb_00007: expected depth in some pixels, got none"):
        group.read([0], "depth")
    with pytest.raises(ValueError, match="Camera_1/rgb_00007: expected normals in some pixels, got none"):
        group.read([0], "normals")
