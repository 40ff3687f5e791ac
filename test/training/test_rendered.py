import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.training import rendered
from lotus2_ros.training.config import Bucket, ScenesConfig

CONFIG = ScenesConfig(
    source="scenes", shards=2, scenes_per_shard=2, views_per_scene=2,
    buckets=(Bucket(height=24, width=40, share=0.5), Bucket(height=16, width=48, share=0.5, kind="street")),
)  # fmt: skip


@pytest.mark.parametrize("field", ["image", "depth", "normals"])
def test_storage_keeps_what_eight_bits_can(field):
    values = torch.rand(2, 1 if field == "depth" else 3, 4, 5) * 2 - 1
    stored = torch.from_numpy(rendered.quantize(values, field))
    torch.testing.assert_close(rendered.dequantize(stored, field), values.expand(-1, 3, -1, -1), atol=1 / 127, rtol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    rendered.render(folder, CONFIG, workers=1)
    return folder


def test_views_are_those_of_the_training_scenes(folder):
    groups = rendered.load(folder, CONFIG)
    assert sum(len(group) for group in groups) == 8
    assert [group.weight for group in groups] == [len(group) for group in groups]
    for group in groups:
        image, depth, valid, shift = group.read([0], "depth")
        height, width = image.shape[2:]
        kind = "street" if height == 16 else None
        views = [scenes.view(scenes.TRAINING_SEEDS + number, width, height, kind).image for number in range(4)]
        shown = ((image[0] + 1) * 127.5).round().permute(1, 2, 0).to(torch.uint8)
        assert any(torch.equal(shown, view) for view in views)
        assert depth.shape == image.shape and -1 <= depth.min() < depth.max() <= 1 and valid.all()
        assert shift.shape == (1,) and 0 <= float(shift) < 5
        normals = group.read([0], "normals")[1]
        torch.testing.assert_close(normals.norm(dim=1), torch.ones(1, height, width), atol=0.02, rtol=0)


def test_only_missing_shards_are_rendered(folder):
    kept, lost = folder / "0000.npz", folder / "0001.npz"
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    rendered.render(folder, CONFIG, workers=1)
    assert kept.stat().st_mtime_ns == before and lost.read_bytes() == content


def test_a_bucket_of_things_has_views_of_things_beside_the_others_of_its_size(tmp_path):
    sizes = {"height": 24, "width": 32, "kind": "room"}
    buckets = (Bucket(**sizes, share=0.5), Bucket(**sizes, share=0.5, close_up=True))
    config = CONFIG.model_copy(update={"shards": 1, "scenes_per_shard": 6, "views_per_scene": 1, "buckets": buckets})
    rendered.render(tmp_path, config, workers=1)
    (group,) = rendered.load(tmp_path, config)
    images = group.read(range(6), "depth")[0]
    shown = ((images + 1) * 127.5).round().permute(0, 2, 3, 1).to(torch.uint8)
    found = set()
    for number, image in enumerate(shown):
        for close_up in (False, True):
            view = scenes.view(scenes.TRAINING_SEEDS + number, 32, 24, "room", close_up=close_up)
            if torch.equal(image, view.image):
                found.add((number, close_up))
    assert {number for number, _ in found} == set(range(6)) and {of for _, of in found} == {False, True}
