"""From the released layout to a bundle that runs, and to none when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lotus2_ros.cli import main
from lotus2_ros.model import checkpoint
from lotus2_ros.model.linear import PRECISIONS
from lotus2_ros.model.lotus2 import Lotus2
from lotus2_ros.model.released import load_released, open_released
from lotus2_ros.prepare.convert import stored_size

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
Prepared = Callable[[str], Path]


def arguments(released: Path, output: Path, *more: str) -> list[str]:
    return [
        "prepare",
        "--flux",
        str(released),
        "--lotus2",
        str(released),
        "--output",
        str(output),
        "--device",
        "cpu",
        *more,
    ]


@pytest.fixture
def released(shared: Path, tmp_path: Path) -> Path:
    """A copy of the tiny released layout to break; links, so replace files rather than write into them."""
    shutil.copytree(shared / "golden" / "tiny-flux", tmp_path / "released", copy_function=os.symlink)
    return tmp_path / "released"


@pytest.fixture(scope="module")
def prepared(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The tiny released model as a bundle of some precision."""
    folder = tmp_path_factory.mktemp("prepared")

    def prepare(precision: str) -> Path:
        output = folder / precision
        if not output.exists():
            assert main(arguments(shared / "golden" / "tiny-flux", output, "--precision", precision)) == 0
        return output

    return prepare


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


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
    """What was measured block by block is what the model as loaded does, on another picture."""
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact, stored = (checkpoint.load(prepared(precision), device="cpu") for precision in ("float32", "int8"))
    told = json.loads((prepared("int8") / "bundle.json").read_text())["errors"]
    for task in exact.tasks:
        measured = error(*(model.core(model.encode(image), task) for model in (stored, exact)))
        assert measured == pytest.approx(told[f"core_predictor_{task}"], rel=0.5)


@torch.inference_mode()
def test_folding_is_exact(prepared: Prepared, shared: Path) -> None:
    cpu = torch.device("cpu")
    unfolded: Lotus2 = load_released(shared / "golden" / "tiny-flux", device=cpu, dtype=torch.float32)
    folded = checkpoint.load(prepared("float32"), device="cpu", dtype="float32")
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = unfolded.encode(image)
    for task in ("depth", "normals"):
        assert error(folded.core(latent, task), unfolded.core(latent, task)) <= 1e-5
        for sigma in (1.0, 0.56324, 0.17691):
            assert error(folded.velocity(latent, task, sigma), unfolded.velocity(latent, task, sigma)) <= 1e-5


def test_what_is_constant_is_not_in_the_bundle(prepared: Prepared) -> None:
    keys = {key for file in prepared("bfloat16").glob("*.safetensors") for key in load_file(file)}
    assert {key.split(".")[0] for key in keys} == {"vae", "continuity", "transformer"}
    constant = ("time_text_embed", "context_embedder", "norm1", "norm.linear", "norm_out", "lora")
    assert not [key for key in keys for name in constant if key.startswith("transformer.") and name in key]


def test_the_sources_are_recorded(prepared: Prepared, shared: Path) -> None:
    manifest = json.loads((prepared("bfloat16") / "bundle.json").read_text())
    files = {name.partition("/")[2]: digest for name, digest in manifest["sources"].items()}
    folder = shared / "golden" / "tiny-flux"
    assert {*files} == {str(f.relative_to(folder)) for f in folder.rglob("*.*") if f.name != "model_index.json"}
    for name in (CORE, TRANSFORMER):
        digest = subprocess.run(["sha256sum", str(folder / name)], capture_output=True, text=True, check=True).stdout
        assert digest.split()[0] == files[name]
    assert manifest["licence"] == "FLUX.1 [dev] Non-Commercial License"
    assert str(folder) not in json.dumps(manifest)


@pytest.mark.parametrize("precision", ["float32", "nf4"])
def test_the_size_is_known_before(prepared: Prepared, shared: Path, precision: str) -> None:
    folder = shared / "golden" / "tiny-flux"
    size = sum(t.nbytes for file in prepared(precision).glob("*.safetensors") for t in load_file(file).values())
    assert stored_size(open_released(folder, folder), precision) == pytest.approx(size, rel=0.02)


def test_one_task_alone(shared: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "bundle"
    assert (
        main(arguments(shared / "golden" / "tiny-flux", output, "--tasks", "normals", "--conditioning", "float32")) == 0
    )
    model = checkpoint.load(output, device="cpu", conditioning="float32")
    assert (model.tasks, model.conditioning) == (("normals",), "float32")
    assert not [name for name in json.loads((output / "bundle.json").read_text())["sources"] if "depth" in name]


# Killed and started again

KILLED = """
import os, signal, sys
from pathlib import Path
from lotus2_ros.cli import main

left, replace = int(sys.argv[1]), Path.replace

def replace_or_die(path, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = replace_or_die
main(sys.argv[2:])
"""


def killed(released: Path, output: Path, precision: str, files: int) -> None:
    """A run that is killed when so many files, the last of them not quite, are there."""
    command = [sys.executable, "-c", KILLED, str(files), *arguments(released, output, "--precision", precision)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not output.exists()


# 1: the prompt, 2, 3: VAE and ends, then a block and the probe's state by turns, 14: the bundle as a whole.
@pytest.mark.parametrize("files", [1, 3, 6, 7, 14])
def test_killed_and_started_again_the_bundle_is_the_same(
    prepared: Prepared,
    shared: Path,
    tmp_path: Path,
    files: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, output = shared / "golden" / "tiny-flux", tmp_path / "bundle"
    expected = contents(prepared("int8"))
    killed(folder, output, "int8", files)
    if files > 1:
        monkeypatch.setattr(
            "lotus2_ros.model.released.embed_empty_prompt", lambda *_, **__: pytest.fail("embedded again")
        )
    assert main(arguments(folder, output, "--precision", "int8")) == 0
    assert contents(output) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_finished_blocks_are_not_folded_again(
    prepared: Prepared, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lotus2_ros.model.fold import Folding

    folder, output, expected = shared / "golden" / "tiny-flux", tmp_path / "bundle", contents(prepared("int8"))
    killed(folder, output, "int8", 8)
    folded, part = [], Folding.part
    monkeypatch.setattr(Folding, "part", lambda self, name: folded.append(name) or part(self, name))
    assert main(arguments(folder, output, "--precision", "int8")) == 0
    assert folded == ["vae", "ends", "single_blocks.0", "single_blocks.1", "single_blocks.2"]
    assert contents(output) == expected


def test_another_plan_starts_anew(prepared: Prepared, shared: Path, tmp_path: Path) -> None:
    folder, output, expected = shared / "golden" / "tiny-flux", tmp_path / "bundle", contents(prepared("nf4"))
    killed(folder, output, "int8", 8)
    assert main(arguments(folder, output, "--precision", "nf4")) == 0
    assert contents(output) == expected


def test_other_sources_start_anew(released: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    killed(released, output, "int8", 8)
    changed = {key: tensor * 1.5 for key, tensor in load_file(released / CORE).items()}
    replace(released / CORE, changed)
    assert main(arguments(released, output, "--precision", "int8")) == 0
    assert main(arguments(released, tmp_path / "other", "--precision", "int8")) == 0
    assert contents(output) == contents(tmp_path / "other")


# What is wrong


def replace(path: Path, weights: dict[str, Tensor]) -> None:
    path.unlink()
    save_file(weights, path)


def refused(released: Path, capsys: pytest.CaptureFixture[str], message: str, *more: str) -> None:
    """Exit status 2, one line, and nothing left."""
    output = released.parent / "out" / "bundle"
    assert main(arguments(released, output, *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lotus2 prepare: ") and message in line, line
    assert not output.parent.exists() or not list(output.parent.iterdir())


@pytest.mark.parametrize(
    "file", [TRANSFORMER, CORE, "vae/diffusion_pytorch_model.safetensors", "text_encoder_2/model.safetensors"]
)
def test_missing_truncated_and_foreign_files(released: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    content = (released / file).read_bytes()
    (released / file).unlink()
    refused(released, capsys, f"{file}: file not found")
    for damaged in (content[: len(content) // 2], b"<html>not found</html>", b""):
        (released / file).write_bytes(damaged)
        refused(released, capsys, f"{file}: truncated or not a weight file")


def test_missing_keys_and_wrong_shapes(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, key = load_file(released / TRANSFORMER), "single_transformer_blocks.2.proj_mlp.weight"
    replace(released / TRANSFORMER, {name: tensor for name, tensor in whole.items() if name != key})
    refused(released, capsys, f"{TRANSFORMER}: missing key {key}")
    replace(released / TRANSFORMER, whole | {key: whole[key][:8]})
    refused(released, capsys, f"{TRANSFORMER}: {key} has shape (8, 64), expected (256, 64)")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (TRANSFORMER, "single_transformer_blocks.2.proj_mlp.weight"),
        (TRANSFORMER, "transformer_blocks.0.norm1_context.linear.bias"),  # folded into a constant
        ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.bias"),
        ("lotus-2_detail_sharpener_normal.safetensors", "transformer.transformer_blocks.1.ff.net.2.lora_B.weight"),
    ],
)
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_numbers_that_are_none(
    released: Path, capsys: pytest.CaptureFixture[str], file: str, key: str, bad: str
) -> None:
    weights = load_file(released / file)
    damaged = weights[key].clone()
    damaged.view(-1)[-1] = float(bad)
    replace(released / file, weights | {key: damaged})
    refused(released, capsys, f"{file}: {key} has NaN or infinite values")


def test_what_overflows_names_the_part(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(released / CORE)
    name = "transformer.transformer_blocks.1.attn.to_q"
    large = {key: torch.full_like(weights[key], 1e30) for key in (f"{name}.lora_A.weight", f"{name}.lora_B.weight")}
    replace(released / CORE, weights | large)
    refused(released, capsys, "double_blocks.1.image.projection")
    replace(released / CORE, weights)
    whole, key = load_file(released / TRANSFORMER), "single_transformer_blocks.1.proj_mlp.weight"
    replace(released / TRANSFORMER, whole | {key: torch.full_like(whole[key], 3e38)})
    refused(released, capsys, "single_blocks.1: activations in float32 have NaN or infinite values")


def test_too_little_room(released: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=60_000_000))
    refused(released, capsys, f"needs 0.07 GB at {released.parent / 'out'}, 0.06 GB free")


def test_a_full_disk(released: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In spite of the check: another program was faster."""

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    refused(released, capsys, "prompt.safetensors: cannot be written ([Errno 28] No space left on device)")


def test_what_is_there_is_left_alone(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = released.parent / "mine"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    for there in (output, output / "thesis.txt"):
        assert main(arguments(released, there)) == 2
        assert f"{there}: already there" in capsys.readouterr().err
    output.rename(released.parent / "bundle.part")
    assert main(arguments(released, released.parent / "bundle")) == 2
    assert "bundle.part: already there, and no unfinished bundle" in capsys.readouterr().err
    assert (released.parent / "bundle.part" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tasks", "depth,flow"), "expected different ones of depth, normals, got ['depth', 'flow']"),
        (("--device", "tpu"), "expected one of auto, cpu, cuda, got 'tpu'"),
        (("--lotus2", "no such/place/"), "no such/place/: no such folder, nor a name on the hub"),
    ],
)
def test_bad_options(released: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str) -> None:
    refused(released, capsys, message, *more)
