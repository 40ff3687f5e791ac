"""Weights as other programs name them: read, or refused by the name of their layout."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.models import SCHEDULER, VAE
from lotus2_ros.model.layouts import open_component
from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2 import flux_layout
from lotus2_ros.model.lotus2.released import open_released
from lotus2_ros.model.weights import CheckpointError

WEIGHTS = "diffusion_pytorch_model.safetensors"
SINGLE = "flux1-dev.safetensors"


def original_flux(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A transformer of diffusers under Black Forest Labs' names."""
    found: dict[str, Tensor] = {}
    layers = {
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "txt_in": "context_embedder",
        "img_in": "x_embedder",
        "final_layer.linear": "proj_out",
    }
    double = {
        "img_mod.lin": ["norm1.linear"],
        "txt_mod.lin": ["norm1_context.linear"],
        "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
        "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
        "img_attn.proj": ["attn.to_out.0"],
        "txt_attn.proj": ["attn.to_add_out"],
        "img_mlp.0": ["ff.net.0.proj"],
        "img_mlp.2": ["ff.net.2"],
        "txt_mlp.0": ["ff_context.net.0.proj"],
        "txt_mlp.2": ["ff_context.net.2"],
    }
    single = {
        "modulation.lin": ["norm.linear"],
        "linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
        "linear2": ["proj_out"],
    }
    double_norms = {
        "img_attn.norm.query_norm": "attn.norm_q",
        "img_attn.norm.key_norm": "attn.norm_k",
        "txt_attn.norm.query_norm": "attn.norm_added_q",
        "txt_attn.norm.key_norm": "attn.norm_added_k",
    }
    single_norms = {"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"}
    for kind in ("weight", "bias"):
        found |= {f"{new}.{kind}": weights[f"{old}.{kind}"] for new, old in layers.items()}
        scale, shift = weights[f"norm_out.linear.{kind}"].chunk(2)
        found[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat((shift, scale))
    for ours, theirs, merged, norms in (
        ("transformer_blocks", "double_blocks", double, double_norms),
        ("single_transformer_blocks", "single_blocks", single, single_norms),
    ):
        for i in {int(key.split(".")[1]) for key in weights if key.startswith(f"{ours}.")}:
            for new, old in merged.items():
                for kind in ("weight", "bias"):
                    rows = [weights[f"{ours}.{i}.{layer}.{kind}"] for layer in old]
                    found[f"{theirs}.{i}.{new}.{kind}"] = torch.cat(rows)
            for new, layer in norms.items():
                found[f"{theirs}.{i}.{new}.scale"] = weights[f"{ours}.{i}.{layer}.weight"]
    return found


def original_vae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A VAE of diffusers as the first Stable Diffusion named it, its attention as convolutions."""
    levels = len({key.split(".")[2] for key in weights if key.startswith("decoder.up_blocks")})
    found = {}
    for key, tensor in weights.items():
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = re.sub(r"to_([qkv])\.", r"\1.", name).replace("to_out.0", "proj_out")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        found[name] = tensor.contiguous()
    return found


def old_vae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A VAE as diffusers named it before 2023."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    found = {}
    for key, tensor in weights.items():
        new = re.sub(r"(attentions\.0)\.(to_[qkv]|to_out\.0)", lambda m: f"{m[1]}.{names[m[2]]}", key)
        found[new] = tensor
    return found


def all_weights(folder: Path, flux: Path | None = None) -> dict[str, Tensor]:
    source = open_released(flux or folder, folder, tasks=("depth",))
    names = [name for name in source.shapes() if name.startswith(("vae.", "transformer.")) and "lora" not in name]
    return {name: source.read(name) for name in names}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_single_file_of_flux_is_read(released: Path) -> None:
    expected = all_weights(released)
    single = original_flux(load_file(released / "transformer" / WEIGHTS))
    config = json.loads((released / "transformer" / "config.json").read_text())
    shutil.rmtree(released / "transformer")
    save_file(single, released / SINGLE)
    assert_same(all_weights(released), expected)
    assert_same(all_weights(released, released / SINGLE), expected)
    found = open_released(released, released, tasks=("depth",)).configs["transformer"]
    found["axes_dims_rope"] = config["axes_dims_rope"]  # of the true head width, 128, it follows from that width
    assert {name: value for name, value in found.items() if name in config} == {
        name: tuple(value) if isinstance(found[name], tuple) else value
        for name, value in config.items()
        if name in found
    }


def test_the_true_size_has_the_true_config(tmp_path: Path) -> None:
    assert VAE.items() >= flux_layout.SINGLE_VAE.items()
    assert SCHEDULER.items() >= flux_layout.SCHEDULER.items()
    shapes = {
        "img_in.weight": (3072, 64),
        "txt_in.weight": (3072, 4096),
        "vector_in.in_layer.weight": (3072, 768),
        "double_blocks.0.img_attn.norm.query_norm.scale": (128,),
    }
    save_file({key: torch.zeros(shape, dtype=torch.bfloat16) for key, shape in shapes.items()}, tmp_path / SINGLE)
    config = flux_layout._single_config(tmp_path / SINGLE)
    assert (config["num_attention_heads"], config["axes_dims_rope"]) == (24, (16, 56, 56))


def test_a_checkpoint_with_text_encoders_is_read_too(released: Path) -> None:
    expected = load_file(released / "transformer" / WEIGHTS)
    whole = {f"model.diffusion_model.{key}": tensor for key, tensor in original_flux(expected).items()}
    save_file(whole | {"vae.decoder.conv_in.bias": torch.zeros(1)}, released / SINGLE)
    homes = open_component(released / SINGLE, {})
    assert_same({name: home.read(name) for name, home in homes.items()}, expected)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_a_single_file_has_all_keys_and_no_other(released: Path, change: str) -> None:
    single = original_flux(load_file(released / "transformer" / WEIGHTS))
    key = "single_blocks.2.linear2.bias"
    single = {name: tensor for name, tensor in single.items() if change != "missing" or name != key}
    save_file(single | ({"stranger": torch.zeros(1)} if change == "unexpected" else {}), released / SINGLE)
    with pytest.raises(CheckpointError, match=rf"{SINGLE}: {change} key {key if change == 'missing' else 'stranger'}"):
        open_component(released / SINGLE, {})


@pytest.mark.parametrize("rename", [original_vae, old_vae])
def test_vaes_of_other_names_are_read(released: Path, rename) -> None:
    expected = all_weights(released)
    weights = load_file(released / "vae" / WEIGHTS)
    (released / "vae" / WEIGHTS).unlink()
    renamed = rename(weights)
    assert renamed.keys() != weights.keys()
    save_file(renamed, released / "vae" / WEIGHTS if rename is old_vae else released / "ae.safetensors")
    assert_same(all_weights(released), expected)


def test_old_names_of_stable_diffusion_are_read(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lotus-depth-d-v2-0-disparity"
    shutil.copytree(shared / "golden" / "tiny-lotus-d", folder, copy_function=os.symlink)
    latent = torch.rand(1, 4, 6, 8)
    expected = load_model(folder, device="cpu").decode(latent)
    weights = load_file(folder / "vae" / WEIGHTS)
    (folder / "vae" / WEIGHTS).unlink()
    save_file(old_vae(weights), folder / "vae" / WEIGHTS)
    assert torch.equal(load_model(folder, device="cpu").decode(latent), expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("diffusion_pytorch_model.bin", b"PK", "file not found; .*bin has pickled weights: fetch the safetensors file"),
        ("diffusion_pytorch_model.fp16.safetensors", b"", r"file not found; .*fp16\.safetensors is a variant of it"),
        ("flux1-dev-Q4_K_S.gguf", b"GGUF", "file not found; .*gguf is a GGUF file, quantized for other programs"),
        (
            WEIGHTS,
            b"GGUF and more",
            "a GGUF file, weights quantized for other programs; expected safetensors in float32",
        ),
    ],
)
def test_layouts_that_are_not_read_are_named(released: Path, name: str, content: bytes, message: str) -> None:
    (released / "transformer" / WEIGHTS).unlink()
    (released / "transformer" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"transformer/{WEIGHTS}: {message}"):
        open_released(released, released, tasks=("depth",))


def test_quantized_checkpoints_are_named(released: Path) -> None:
    file = released / "transformer" / WEIGHTS
    weights = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in load_file(file).items()}
    file.unlink()
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"is in float8_e4m3fn, a quantized checkpoint; expected safetensors in"):
        open_released(released, released, tasks=("depth",))


def test_a_folder_of_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "flux1-dev-Q4_K_S.gguf").touch()
    with pytest.raises(
        CheckpointError, match=r"neither a bundle .* nor a released layout .*Q4_K_S.gguf is a GGUF file"
    ):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("jingheya/Lotus-2", "no such folder; models of the Hugging Face hub are fetched by `lotus2 prepare`"),
        ("flux1-dev.safetensors", "a single file, not a folder; `lotus2 prepare` makes a bundle of a FLUX checkpoint"),
        ("flux1-dev-Q4_K_S.gguf", "a GGUF file, quantized for other programs, which is not read"),
        ("/nowhere/at/all", "no such folder; expected a bundle"),
    ],
)
def test_paths_that_are_no_folder_are_named(tmp_path: Path, monkeypatch, path: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    if path.startswith("flux"):
        Path(path).touch()
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: {message}")):
        load_model(path, device="cpu")
