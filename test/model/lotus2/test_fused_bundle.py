"""What a fused bundle holds comes back, all of it or a part; what does not fit is told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fused import METADATA, write_fused
from safetensors.torch import load_file, save_file

from lotus2_ros.model.layers.linear import PRECISIONS
from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2.bundle import part_file, part_of
from lotus2_ros.model.lotus2.fuse import fuse
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.manifest import MANIFEST
from lotus2_ros.model.weights import CheckpointError


@pytest.fixture
def bundle(small: TrainableLotus2, tmp_path: Path) -> Path:
    return write_fused(small, tmp_path, "float32")


@torch.inference_mode()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_model_comes_back(small: TrainableLotus2, tmp_path: Path, precision: str) -> None:
    small.settings = small.settings.changed(process_by_area=True)
    loaded = load_model(write_fused(small, tmp_path, precision), device="cpu", dtype="float32")
    direct = fuse(small.source(), precision, device=torch.device("cpu"), dtype=torch.float32)
    latent = torch.randn(1, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    for task in small.tasks:
        assert torch.allclose(loaded.core(latent, task), direct.core(latent, task), atol=1e-5)
        assert torch.allclose(loaded.velocity(latent, task, 0.3), direct.velocity(latent, task, 0.3), atol=1e-5)
    assert loaded.settings == direct.settings and loaded.metadata == METADATA
    assert loaded.precision == ("float32" if precision == "bfloat16" else precision)


@torch.inference_mode()
@pytest.mark.parametrize("task", ["depth", "normals"])
def test_one_task_of_two(small: TrainableLotus2, bundle: Path, task: str) -> None:
    """Also the one that is not the base."""
    loaded = load_model(bundle, device="cpu", tasks=(task,))
    latent = torch.randn(1, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loaded.core(latent, task), small.core(latent, task), atol=1e-5)
    assert torch.allclose(loaded.velocity(latent, task, 0.3), small.velocity(latent, task, 0.3), atol=1e-5)
    other = {"depth": "normals", "normals": "depth"}[task]
    assert not any(other in name for name in loaded.state_dict())
    with pytest.raises(ValueError, match=f"expected a task of .* got '{other}'"):
        loaded.core(latent, other)


def test_it_runs_in_bfloat16_and_keeps_what_is_exact(bundle: Path) -> None:
    loaded = load_model(bundle, device="cpu", dtype="bfloat16")
    assert loaded.dtype == torch.bfloat16
    assert loaded.transformer.timesteps.polynomials.dtype == torch.float32
    assert loaded.transformer.double_blocks[0].modulation.dtype == torch.float32


def test_another_timestep_dtype_needs_another_bundle(bundle: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected timestep_dtype bfloat16, .* got float32"):
        load_model(bundle, device="cpu", timestep_dtype="float32")


def test_a_parameter_has_one_part() -> None:
    assert part_of("vae.decoder.conv_in.weight") == "vae"
    assert part_of("transformer.prompt") == part_of("continuity.depth.layers.0.weight") == "ends"
    assert part_of("transformer.head.modulation") == "ends"
    assert part_of("transformer.single_blocks.12.out.base.weight") == "single_blocks.12"


Change = Callable[[dict], object]


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("ends", lambda w: w.pop("transformer.prompt"), r"ends\.safetensors: missing key transformer\.prompt"),
        ("vae", lambda w: w.update(extra=torch.zeros(1)), r"vae\.safetensors: unexpected key extra"),
        (
            "double_blocks.1",
            lambda w: w.update({"transformer.double_blocks.1.modulation": torch.zeros(2, 3)}),
            r"expected transformer\.double_blocks\.1\.modulation of shape .* got \(2, 3\)",
        ),
    ],
)
def test_weights_must_fit(bundle: Path, part: str, change: Change, message: str) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(bundle / part_file(part)).items()}
    change(weights)
    save_file(weights, bundle / part_file(part))
    with pytest.raises(CheckpointError, match=message):
        load_model(bundle, device="cpu")


def test_every_part_must_be_there(bundle: Path) -> None:
    (bundle / part_file("single_blocks.0")).unlink()
    with pytest.raises(CheckpointError, match=r"single_blocks\.0\.safetensors: file not found"):
        load_model(bundle, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("timesteps"), "missing key timesteps"),
        (lambda m: m.update(precision="int3"), "precision: expected .*, got 'int3'"),
        (lambda m: m["components"]["vae"].update(color="red"), "color"),
    ],
)
def test_the_manifest_must_fit(bundle: Path, change: Change, message: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=rf"bundle\.json: .*{message}"):
        load_model(bundle, device="cpu")
