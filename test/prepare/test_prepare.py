"""From the released layout to a bundle that runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lotus2_ros.cli import main
from lotus2_ros.model.layers.linear import PRECISIONS
from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import save_bundle
from lotus2_ros.model.lotus2.conversion import Lotus2Conversion
from lotus2_ros.model.lotus2.probe import picture
from lotus2_ros.model.lotus2.released import load_released, open_released
from lotus2_ros.model.lotus2.trainable import TrainableLotus2

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
CORE = "lotus-2_core_predictor_depth.safetensors"
# Relative errors of a pass of the tiny model: at least, at most.
ERRORS = {
    "float32": (0.0, 1e-6),
    "bfloat16": (1e-3, 0.01),
    "int8": (2e-3, 0.03),
    "float8": (0.01, 0.12),
    "nf4": (0.03, 0.25),
}
Arguments = Callable[..., list[str]]
Prepared = Callable[[str], Path]


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bundle_runs_and_tells_its_errors(prepared: Prepared, precision: str, tmp_path: Path) -> None:
    bundle = prepared(precision)
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert manifest["precision"] == precision
    errors = manifest["errors"]
    assert errors.pop("compute") == "float32"
    adapters = {f"{stage}_{task}" for stage in ("core_predictor", "detail_sharpener") for task in ("depth", "normals")}
    assert errors.keys() == {*adapters, "disparity", "normals"}
    low, high = ERRORS[precision]
    assert all(low <= errors[name] <= high for name in adapters), errors
    cv2.imwrite(str(tmp_path / "street.png"), np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    options = ["--model", str(bundle), "--device", "cpu", "--sharpen-steps", "2", "--output", str(tmp_path / "out")]
    assert main(["infer", str(tmp_path / "street.png"), *options]) == 0
    assert np.isfinite(np.load(tmp_path / "out" / "street" / "disparity.npy")).all()


@torch.inference_mode()
def test_the_errors_are_those_of_the_bundle(prepared: Prepared) -> None:
    """What was measured block by block, all stages as one batch, is what the model does as it is loaded."""
    exact, stored = (load_model(prepared(precision), device="cpu") for precision in ("float32", "int8"))
    told = json.loads((prepared("int8") / "bundle.json").read_text())["errors"]
    latents = {model: model.encode(picture()) for model in (stored, exact)}
    for task in ("depth", "normals"):
        measured = error(*(model.velocity(latent, task, 1.0) for model, latent in latents.items()))
        assert measured == pytest.approx(told[f"detail_sharpener_{task}"], rel=0.02)
    disparity = error(*(model.decode(model.core(latent, "depth")).mean(1) for model, latent in latents.items()))
    assert disparity == pytest.approx(told["disparity"], rel=0.02)


@torch.inference_mode()
def test_fusing_is_exact(prepared: Prepared, golden: Path) -> None:
    cpu = torch.device("cpu")
    unfused: Lotus2 = load_released(golden, device=cpu, dtype=torch.float32)
    fused = load_model(prepared("float32"), device="cpu", dtype="float32")
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = unfused.encode(image)
    for task in ("depth", "normals"):
        assert error(fused.core(latent, task), unfused.core(latent, task)) <= 1e-5
        for sigma in (1.0, 0.56324, 0.17691):
            assert error(fused.velocity(latent, task, sigma), unfused.velocity(latent, task, sigma)) <= 1e-5


def test_what_is_constant_is_not_in_the_bundle(prepared: Prepared) -> None:
    keys = {key for file in prepared("bfloat16").glob("*.safetensors") for key in load_file(file)}
    assert {key.split(".")[0] for key in keys} == {"vae", "continuity", "transformer"}
    constant = ("time_text_embed", "context_embedder", "norm1", "norm.linear", "norm_out", "lora")
    assert not [key for key in keys for name in constant if key.startswith("transformer.") and name in key]


def test_the_sources_are_recorded(prepared: Prepared, golden: Path) -> None:
    manifest = json.loads((prepared("bfloat16") / "bundle.json").read_text())
    files = {name.partition("/")[2]: digest for name, digest in manifest["sources"].items()}
    assert {*files} == {str(f.relative_to(golden)) for f in golden.rglob("*.*") if f.name != "model_index.json"}
    for name in (CORE, TRANSFORMER):
        digest = subprocess.run(["sha256sum", str(golden / name)], capture_output=True, text=True, check=True).stdout
        assert digest.split()[0] == files[name]
    assert manifest["licence"] == "FLUX.1 [dev] Non-Commercial License"
    assert str(golden) not in json.dumps(manifest)


@pytest.mark.parametrize("precision", ["float32", "nf4"])
def test_the_size_is_known_before(prepared: Prepared, golden: Path, precision: str) -> None:
    size = sum(t.nbytes for file in prepared(precision).glob("*.safetensors") for t in load_file(file).values())
    source = open_released(golden, golden)
    conversion = Lotus2Conversion(source, {}, precision=precision, device=torch.device("cpu"))
    assert conversion.size == pytest.approx(size, rel=0.02)


def test_one_task_alone(golden: Path, arguments: Arguments, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "bundle"
    assert main(arguments(golden, output, "--tasks", "normals", "--conditioning", "float32")) == 0
    model = load_model(output, device="cpu", timestep_dtype="float32")
    assert (model.tasks, model.settings.timestep_dtype) == (("normals",), "float32")
    assert not [name for name in json.loads((output / "bundle.json").read_text())["sources"] if "depth" in name]


def test_a_trained_bundle(small: TrainableLotus2, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name and licence go on; what it was made from is recorded."""
    save_bundle(small, tmp_path / "trained", metadata={"name": "mine", "licence": "MIT"}, dtype=torch.float32)
    output = tmp_path / "int8"
    assert main(["prepare", "--bundle", str(tmp_path / "trained"), "--output", str(output), "--precision", "int8"]) == 0
    assert "License: MIT" in capsys.readouterr().out
    loaded = load_model(output, device="cpu")
    assert (loaded.name, loaded.precision) == ("mine", "int8")
    assert sorted(loaded.metadata["sources"]) == ["bundle/bundle.json", "bundle/model.safetensors"]
    latent = torch.randn(1, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = small.core(latent, "normals")
        assert 0 < (loaded.core(latent, "normals") - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize("sources", [[], ["--flux", "a"], ["--flux", "a", "--lotus2", "b", "--bundle", "c"]])
def test_where_from_must_be_said(sources: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", *sources, "--output", str(tmp_path / "out")]) == 2
    assert "expected --flux and --lotus2" in capsys.readouterr().err


def test_unless_asked_for_nothing_is_rounded(golden: Path, arguments: Arguments, tmp_path: Path) -> None:
    """The tiny model's files are in float32."""
    assert main(arguments(golden, tmp_path / "out", "--tasks", "depth")) == 0
    assert json.loads((tmp_path / "out" / "bundle.json").read_text())["precision"] == "float32"
