"""The image prior: its backbone is the published one, and its features reach whatever goes through the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fused import write_fused
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.engine.flops import count_frame
from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import WEIGHTS, save_bundle
from lotus2_ros.model.lotus2.fuse import fuse
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.manifest import MANIFEST
from lotus2_ros.model.prior.efficientnet import NORM_EPSILON, STAGES, EfficientNetLite0, fuse_norms
from lotus2_ros.model.prior.prior import ImagePrior
from lotus2_ros.model.weights import CheckpointError

METADATA = {"name": "small", "licence": "none"}
CONFIG = {"backbone": "efficientnet-lite0", "hidden": 8, "channels": 3, "patch": 2}
CPU = torch.device("cpu")


@pytest.fixture
def picture(generator: torch.Generator) -> Tensor:
    return torch.rand(1, 3, 48, 64, generator=generator) * 2 - 1


@pytest.fixture
def published(generator: torch.Generator) -> dict[str, Tensor]:
    """Random weights under the published names: convolutions without bias, norms with statistics."""
    state: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"{convolution}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        for kind, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.5, 1),
            ("running_mean", -1, 1),
            ("running_var", 0.2, 2),
        ):
            state[f"{norm}.{kind}"] = low + (high - low) * torch.rand(shape[0], generator=generator)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    number, taken = 0, 32
    for kernel, _, expansion, given, count in STAGES:
        for _ in range(count):
            block, width = f"_blocks.{number}.", taken * expansion
            if expansion > 1:
                add(f"{block}_expand_conv", f"{block}_bn0", width, taken, 1, 1)
            add(f"{block}_depthwise_conv", f"{block}_bn1", width, 1, kernel, kernel)
            add(f"{block}_project_conv", f"{block}_bn2", given, width, 1, 1)
            number, taken = number + 1, given
    return state


def with_norms(state: dict[str, Tensor], image: Tensor) -> dict[int, Tensor]:
    """The network as it was trained, its batch norms in evaluation: another way to the same maps."""

    def apply(x: Tensor, convolution: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{convolution}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=NORM_EPSILON)

    x, number, stride, maps = F.relu6(apply(image, "_conv_stem", "_bn0", 2)), 0, 2, {}
    for _, step, expansion, _, count in STAGES:
        for index in range(count):
            block, y = f"_blocks.{number}.", x
            if expansion > 1:
                y = F.relu6(apply(y, f"{block}_expand_conv", f"{block}_bn0"))
            y = apply(y, f"{block}_depthwise_conv", f"{block}_bn1", step if index == 0 else 1, y.shape[1])
            y = apply(F.relu6(y), f"{block}_project_conv", f"{block}_bn2")
            x, number = (y + x if index else y), number + 1
        stride *= step
        maps[stride] = x
    return maps


@torch.inference_mode()
def test_fuse_norms_change_nothing(published: dict[str, Tensor], picture: Tensor) -> None:
    published, picture = {name: each.double() for name, each in published.items()}, picture.double()
    backbone = EfficientNetLite0().double()
    backbone.load_state_dict(fuse_norms(published))
    expected, maps = with_norms(published, picture), backbone(picture)
    assert {stride: values.shape[1] for stride, values in maps.items()} == EfficientNetLite0.channels
    for stride, values in maps.items():
        assert values.shape[2:] == (-(-48 // stride), 64 // stride)
        assert float((values - expected[stride]).norm() / expected[stride].norm()) < 1e-9


@torch.inference_mode()
@pytest.mark.parametrize(("factor", "patch"), [(8, 2), (4, 2), (8, 1)])
def test_features_lie_on_the_latents_grid(factor: int, patch: int) -> None:
    """Also where a map has to be made finer or coarser, and where the image is no multiple of its stride."""
    prior = ImagePrior(CONFIG | {"patch": patch}, factor)
    image = torch.zeros(1, 3, 112, 176)
    features = prior(image)
    assert features.shape == (1, 3, 112 // factor, 176 // factor)
    image[:, :, -16:, -16:] = torch.rand(3, 16, 16)
    changed = (prior(image) - features).abs().sum(1)[0]
    assert changed[-1, -1] > 10 * changed[0, 0]  # something in a corner is seen there


@torch.inference_mode()
def test_it_runs_as_it_was_trained(with_prior: TrainableLotus2, small: TrainableLotus2, picture: Tensor) -> None:
    ours = fuse(with_prior.source(), "float32", device=CPU, dtype=torch.float32)
    for expected, result in zip(answers(with_prior, picture), answers(ours, picture), strict=True):
        assert float((result - expected).norm() / expected.norm()) < 1e-5
    ours.batched = True
    latent = ours.encode(picture)
    for task, together in ours.predict(latent, ours.tasks).items():
        assert torch.allclose(together, ours.core(latent, task), atol=1e-5)
    plain = fuse(small.source(), "float32", device=CPU, dtype=torch.float32)
    assert count_frame(ours, 48, 64).encode > count_frame(plain, 48, 64).encode


@torch.inference_mode()
def test_features_are_carried_along_and_seen_by_every_step(with_prior: TrainableLotus2, picture: Tensor) -> None:
    latent = with_prior.encode(picture)
    other = torch.cat((latent[:, :4], latent[:, 4:].flip(-1)), dim=1)
    assert latent.shape == (1, 4 + 3, 12, 16)
    assert torch.equal(latent[:, :4], with_prior.encode_annotation(picture))
    for task in with_prior.tasks:
        core, changed = with_prior.core(latent, task), with_prior.core(other, task)
        assert torch.equal(core[:, 4:], latent[:, 4:])
        assert not torch.allclose(core[:, :4], changed[:, :4], atol=1e-3)
        sharp, sharp_of_other = (
            with_prior.sharpen(torch.cat((core[:, :4], each[:, 4:]), dim=1), task, 2).result()
            for each in (latent, other)
        )
        assert torch.equal(sharp[:, 4:], latent[:, 4:])
        assert not torch.allclose(sharp[:, :4], sharp_of_other[:, :4], atol=1e-3)
        assert torch.equal(with_prior.decode(core), with_prior.decode(core[:, :4]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_kinds_of_bundle_bring_it_back(
    with_prior: TrainableLotus2, picture: Tensor, tmp_path: Path, dtype: str
) -> None:
    save_bundle(with_prior, tmp_path / "trained", metadata=METADATA, dtype=torch.float32)
    write_fused(with_prior, tmp_path / "fused")
    with torch.inference_mode():
        expected = answers(with_prior, picture)
        for name in ("trained", "fused"):
            loaded = load_model(tmp_path / name, device="cpu", dtype=dtype)
            assert loaded.prior.config == with_prior.prior.config
            for result, wanted in zip(answers(loaded, picture), expected, strict=True):
                assert (result - wanted).abs().mean() < (1e-5 if dtype == "float32" else 0.02)


def test_a_bundle_without_is_as_before(small: TrainableLotus2, picture: Tensor, tmp_path: Path) -> None:
    save_bundle(small, tmp_path, metadata=METADATA, dtype=torch.float32)
    assert "prior" not in json.loads((tmp_path / MANIFEST).read_text())["components"]
    loaded = load_model(tmp_path, device="cpu", dtype="float32")
    assert not any(name.startswith("prior.") for name in loaded.state_dict())
    with torch.inference_mode():
        assert torch.allclose(loaded.encode(picture), small.encode_annotation(picture), atol=1e-5)


def test_what_does_not_fit_is_refused(with_prior: TrainableLotus2, tmp_path: Path) -> None:
    save_bundle(with_prior, tmp_path, metadata=METADATA, dtype=torch.float32)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    tensors = load_file(tmp_path / WEIGHTS)
    tensors.pop("prior.backbone.stem.0.weight")
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"missing key prior\.backbone\.stem\.0\.weight"):
        load_model(tmp_path, device="cpu")
    manifest["components"]["prior"]["backbone"] = "resnet"
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="efficientnet-lite0, got 'resnet'"):
        load_model(tmp_path, device="cpu")
    del manifest["components"]["prior"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="got 28 to"):
        load_model(tmp_path, device="cpu")


def answers(model: Lotus2, image: Tensor) -> list[Tensor]:
    """Latent of the image, then core and sharpened annotation of every task."""
    latent = model.encode(image)
    cores = {task: model.core(latent, task) for task in model.tasks}
    sharp = [model.sharpen(core, task, 2).result() for task, core in cores.items()]
    return [latent, *(model.decode(each) for each in (*cores.values(), *sharp))]
