"""Lotus-D and Lotus-G: samples, bundles, released folders, and what is said of bad ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.engine.flops import count_frame
from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus.conversion import LotusConversion
from lotus2_ros.model.lotus.released import open_pipelines, predicted_by
from lotus2_ros.model.weights import CheckpointError
from lotus2_ros.prepare.convert import convert

IMAGE = torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["lotus-d", "lotus-g"])
def family(request):
    return request.param


@pytest.fixture
def pipeline(family, shared, tmp_path):
    """A copy of a released folder, to be damaged, of a name that says what it predicts."""
    folder = tmp_path / f"lotus-depth-{family[-1]}-v9-disparity"
    shutil.copytree(shared / "golden" / f"tiny-{family}", folder)
    return folder


def load(folder, **settings):
    return load_model(folder, device="cpu", **settings)


@pytest.fixture
def two_tasks(pipeline, tmp_path):
    """A bundle of both tasks, whose U-Nets differ."""
    normals = tmp_path / "lotus-normal-v9"
    shutil.copytree(pipeline, normals)
    file = normals / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_out.bias"] += 0.1
    save_file(weights, file)
    folders = {"depth": pipeline, "normals": normals}
    convert(LotusConversion(folders, {}, predicts="disparity", precision="float32"), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_answers_as_the_folders_it_was_made_of(two_tasks, pipeline):
    model, released = load(two_tasks), load(pipeline)
    assert model.tasks == ("depth", "normals") and released.tasks == ("depth",)
    latent = released.encode(torch.rand(1, 3, 48, 64) * 2 - 1)
    found = model.predict(latent, model.tasks)
    torch.testing.assert_close(found["depth"], released.predict(latent, ("depth",))["depth"])
    torch.testing.assert_close(found["normals"], found["depth"] + 0.1)
    assert load(two_tasks, tasks=("normals",)).tasks == ("normals",)
    assert "text_encoder" not in " ".join(file.name for file in two_tasks.iterdir())


def test_samples_are_the_same_however_many_and_whenever(pipeline, family):
    latent = torch.rand(1, 4, 6, 8)
    three, four = (load(pipeline, samples=samples, seed=5) for samples in (3, 4))
    found, more = (model.predict(latent, ("depth",))["depth"] for model in (three, four))
    if family == "lotus-d":
        assert len(found) == len(more) == 1 and torch.equal(found, more)
        return
    assert len(found) == 3 and len(more) == 4
    torch.testing.assert_close(found, more[:3], atol=1e-5, rtol=0)
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert torch.equal(found, three.predict(latent, ("depth",))["depth"])
    other = load(pipeline, samples=3, seed=6).predict(latent, ("depth",))["depth"]
    assert not torch.allclose(other, found, atol=1e-3)


def test_only_the_generative_model_knows_how_sure_it_is(pipeline, family):
    estimator = Estimator(load(pipeline, samples=3), Config().updated({"model.process_resolution": 64}))
    geometry = estimator.predict(IMAGE)
    assert (
        geometry.disparity.shape == IMAGE.shape[:2] and 0 <= geometry.disparity.min() <= geometry.disparity.max() <= 1
    )
    if family == "lotus-d":
        assert geometry.uncertainty is None
    else:
        assert geometry.uncertainty.shape == IMAGE.shape[:2] and geometry.uncertainty.min() >= 0
        assert geometry.uncertainty.max() > 0


def test_small_images_are_enlarged_and_sides_fit_the_vae(pipeline):
    model = load(pipeline)
    assert model.process_size(480, 640, 768) == (576, 768)
    assert model.process_size(375, 1242, 768) == (224, 744)
    assert model.multiple == 8


def test_what_every_frame_takes_is_copied_to_the_device_once(pipeline):
    """A GPU would wait for each copy."""
    model, seen = load(pipeline), []
    model.executor = lambda key, function, *tensors: seen.append(tensors) or function(*tensors)
    with torch.inference_mode():
        for _ in range(2):
            model.predict(torch.zeros(1, 4, 4, 4), model.tasks)
    (_, *first), (_, *second) = seen
    assert [each.data_ptr() for each in first] == [each.data_ptr() for each in second]


def test_there_is_no_sharpener(pipeline):
    model = load(pipeline)
    assert not model.has_sharpener("depth")
    with pytest.raises(ValueError, match=r"lotus-[dg] has no detail sharpener for depth"):
        model.sharpen(torch.zeros(1, 4, 6, 8), "depth")
    with pytest.raises(ValueError, match=r"expected a task of lotus-[dg] \(depth\), got 'normals'"):
        model.predict(torch.zeros(1, 4, 6, 8), ("normals",))


def test_the_cost_is_counted_without_running_it(pipeline, family):
    one, two = (count_frame(load(pipeline, samples=samples), 64, 96) for samples in (1, 2))
    assert one.encode == two.encode > 0
    times = 2 if family == "lotus-g" else 1
    assert two.core == times * one.core and two.decode == times * one.decode


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lotus-depth-g-v1-0", ("depth", "depth")),
        ("lotus-depth-d-v2-0-disparity", ("depth", "disparity")),
        ("lotus-normal-g-v1-1", ("normals", "disparity")),
    ],
)
def test_released_names_say_what_is_predicted(name, found):
    assert predicted_by(Path("/models") / name) == found


def truncate(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def drop_key(folder):
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["encoder.conv_in.weight"]
    save_file(weights, file)


def change_index(folder):
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "StableDiffusionPipeline"}))


def other_width(folder):
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cross_attention_dim": 32}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"unet/diffusion_pytorch_model\.safetensors: truncated or not a weight file"),
        (drop_key, r"vae/diffusion_pytorch_model\.safetensors: missing key encoder\.conv_in\.weight"),
        (change_index, "expected a LotusDPipeline or LotusGPipeline, got StableDiffusionPipeline"),
        (other_width, "expected a prompt embedding of 32 channels, as the U-Net takes, got 24"),
        (lambda folder: shutil.rmtree(folder / "text_encoder"), "text_encoder: folder not found"),
        (lambda folder: (folder / "vae" / "config.json").unlink(), r"vae/config\.json: file not found"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_in_one_line(pipeline, damage, message):
    damage(pipeline)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(pipeline)
    assert "\n" not in str(caught.value)


def test_a_name_that_says_nothing_is_an_error(pipeline):
    renamed = pipeline.rename(pipeline.with_name("snapshot"))
    with pytest.raises(CheckpointError, match=r"snapshot: expected a name that says what it predicts, such as lotus-"):
        load(renamed)


def test_families_do_not_mix(shared):
    folders = {"depth": shared / "golden" / "tiny-lotus-d", "normals": shared / "golden" / "tiny-lotus-g"}
    with pytest.raises(CheckpointError, match=r"tiny-lotus-g: expected a lotus-d as in .*tiny-lotus-d, got a lotus-g"):
        open_pipelines(folders, predicts="disparity")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "got format 9 of family lotus-"),
        ({"predicts": "inverse"}, r"bundle\.json: predicts: expected 'disparity' or 'depth', got 'inverse'"),
        ({"prompt_shape": None}, r"bundle\.json: prompt_shape: expected a valid array, got 'None'"),
    ],
)
def test_a_manifest_must_fit(two_tasks, change, message):
    file = two_tasks / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load(two_tasks)


def test_a_bundle_without_one_of_its_files_is_an_error(two_tasks):
    (two_tasks / "unet_normals.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"unet_normals\.safetensors: file not found"):
        load(two_tasks)
