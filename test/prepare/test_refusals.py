"""No bundle when something is wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lotus2_ros.cli import main

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
CORE = "lotus-2_core_predictor_depth.safetensors"
Arguments = Callable[..., list[str]]
Refused = Callable[..., None]


def replace(path: Path, weights: dict[str, Tensor]) -> None:
    path.unlink()
    save_file(weights, path)


@pytest.fixture
def refused(released: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Exit status 2, one line with this in it, and nothing left but the parts that were finished."""

    def check(message: str, *more: str) -> None:
        output = released.parent / "out" / "bundle"
        assert main(arguments(released, output, *more)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("lotus2 prepare: ") and message in line, line
        left = list(output.parent.iterdir()) if output.parent.exists() else []
        assert not left or (left == [output.with_name("bundle.part")] and list(left[0].rglob("*.safetensors")))

    return check


@pytest.mark.parametrize(
    "file", [TRANSFORMER, CORE, "vae/diffusion_pytorch_model.safetensors", "text_encoder_2/model.safetensors"]
)
def test_missing_truncated_and_foreign_files(released: Path, refused: Refused, file: str) -> None:
    content = (released / file).read_bytes()
    (released / file).unlink()
    refused(f"{file}: file not found")
    for damaged in (content[: len(content) // 2], b"<html>not found</html>", b""):
        (released / file).write_bytes(damaged)
        refused(f"{file}: truncated or not a weight file")


def test_missing_keys_and_wrong_shapes(released: Path, refused: Refused) -> None:
    whole, key = load_file(released / TRANSFORMER), "single_transformer_blocks.2.proj_mlp.weight"
    replace(released / TRANSFORMER, {name: tensor for name, tensor in whole.items() if name != key})
    refused(f"{TRANSFORMER}: missing key {key}")
    replace(released / TRANSFORMER, whole | {key: whole[key][:8]})
    refused(f"{TRANSFORMER}: expected {key} of shape (256, 64), got (8, 64)")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (TRANSFORMER, "single_transformer_blocks.2.proj_mlp.weight"),
        (TRANSFORMER, "transformer_blocks.0.norm1_context.linear.bias"),  # fused into a constant
        ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.bias"),
        ("lotus-2_detail_sharpener_normal.safetensors", "transformer.transformer_blocks.1.ff.net.2.lora_B.weight"),
    ],
)
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_numbers_that_are_none(released: Path, refused: Refused, file: str, key: str, bad: str) -> None:
    weights = load_file(released / file)
    damaged = weights[key].clone()
    damaged.view(-1)[-1] = float(bad)
    replace(released / file, weights | {key: damaged})
    refused(f"{file}: {key} has NaN or infinite values")


def test_what_overflows_names_the_part(released: Path, refused: Refused) -> None:
    weights = load_file(released / CORE)
    name = "transformer.transformer_blocks.1.attn.to_q"
    large = {key: torch.full_like(weights[key], 1e30) for key in (f"{name}.lora_A.weight", f"{name}.lora_B.weight")}
    replace(released / CORE, weights | large)
    refused("double_blocks.1.image.projection")
    replace(released / CORE, weights)
    whole, key = load_file(released / TRANSFORMER), "single_transformer_blocks.1.proj_mlp.weight"
    replace(released / TRANSFORMER, whole | {key: torch.full_like(whole[key], 3e38)})
    refused("single_blocks.1: activations in float32 have NaN or infinite values")


def test_too_little_room(released: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=60_000_000))
    refused(f"expected 0.07 GB free at {released.parent / 'out'}, got 0.06 GB")


def test_a_full_disk(released: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """In spite of the check: another program was faster."""

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    refused("prompt.safetensors: cannot be written ([Errno 28] No space left on device)")


def test_a_place_where_nothing_can_be_written(
    released: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    (released.parent / "file").touch()
    assert main(arguments(released, released.parent / "file" / "bundle")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lotus2 prepare: ") and f"{released.parent}/file" in line


def test_what_is_there_is_left_alone(released: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    output = released.parent / "mine"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    for there in (output, output / "thesis.txt"):
        assert main(arguments(released, there)) == 2
        assert f"{there}: already there" in capsys.readouterr().err
    output.rename(released.parent / "bundle.part")
    assert main(arguments(released, released.parent / "bundle")) == 2
    assert "bundle.part: expected an unfinished bundle or nothing" in capsys.readouterr().err
    assert (released.parent / "bundle.part" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tasks", "depth,flow"), "expected a selection of auto, depth, normals, got ['depth', 'flow']"),
        (("--device", "tpu"), "expected one of auto, cpu, cuda, openvino:DEVICE, got 'tpu'"),
        (("--lotus2", "no such/place/"), "no such/place/: expected a folder or a name on the hub"),
        (("--lotus2", "{dir}/vae"), "vae/lotus-2_core_predictor_depth.safetensors: file not found"),
        (("--precision", "float16"), "expected a precision of float32, bfloat16, float8, int8, nf4 for Lotus-2, got"),
        (("--flux", "{dir}/flux1-dev-Q4_K.gguf"), "gguf: expected a folder or flux1-dev.safetensors, got a GGUF file"),
        (("--flux", "{dir}/model_index.json"), "model_index.json: expected a folder or flux1-dev.safetensors, got"),
    ],
)
def test_bad_options(released: Path, refused: Refused, more: tuple[str, ...], message: str) -> None:
    (released / "flux1-dev-Q4_K.gguf").write_bytes(b"GGUF")
    refused(message, *(option.replace("{dir}", str(released)) for option in more))
