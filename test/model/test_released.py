from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lotus2_ros.model import checkpoint
from lotus2_ros.model.weights import CheckpointError

CORE = "lotus-2_core_predictor_depth.safetensors"
CONTINUITY = "lotus-2_lcm_depth.safetensors"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def released(shared: Path, tmp_path: Path) -> Path:
    """A copy of the tiny released layout to break; links, so replace files rather than write into them."""
    shutil.copytree(shared / "golden" / "tiny-flux", tmp_path / "model", copy_function=os.symlink)
    return tmp_path / "model"


def replace(path: Path, weights: dict[str, torch.Tensor]) -> None:
    path.unlink()
    save_file(weights, path)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^[^\n]*{message}[^\n]*$"):
        checkpoint.load(folder, device="cpu", dtype="float32", tasks=("depth",))


def test_a_task_needs_only_its_own_files(released: Path) -> None:
    for file in released.glob("*_normal.safetensors"):
        file.unlink()
    model = checkpoint.load(released, device="cpu", dtype="float32", tasks=("depth",))
    assert sorted(model.adapters) == ["core_predictor_depth", "detail_sharpener_depth"]
    assert (model.process_resolution, model.conditioning, model.multiple) == (1024, "bfloat16", 16)
    assert model.adapters["core_predictor_depth"].r == model.adapters["core_predictor_depth"].lora_alpha == 128
    assert (model.conditioner.prompt_embeds.shape, model.conditioner.pooled.shape) == ((1, 512, 32), (1, 24))
    with pytest.raises(CheckpointError, match=r"lotus-2_core_predictor_normal\.safetensors: file not found"):
        checkpoint.load(released, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    "file",
    [
        CORE,
        CONTINUITY,
        "lotus-2_detail_sharpener_depth.safetensors",
        TRANSFORMER,
        "transformer/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_or_broken_file_is_named(released: Path, file: str) -> None:
    content = (released / file).read_bytes()
    (released / file).unlink()
    refused(released, f"{file}: file not found")
    (released / file).write_bytes(content[: len(content) // 2])
    refused(released, f"{file}: (truncated or not a weight file|not JSON)")


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"])
def test_the_text_encoders_have_to_be_there(released: Path, part: str) -> None:
    for name in ("model.safetensors", "tokenizer.json", "vocab.json"):
        (released / part / name).unlink(missing_ok=True)
    refused(released, part)
    shutil.rmtree(released / part)
    refused(released, f"{part}: folder not found")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (CORE, "transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight"),
        (TRANSFORMER, "proj_out.bias"),
        (TRANSFORMER, "transformer_blocks.1.attn.to_q.weight"),  # an adapted layer
        ("vae/diffusion_pytorch_model.safetensors", "encoder.conv_in.weight"),
    ],
)
def test_every_key_and_no_other(released: Path, file: str, key: str) -> None:
    whole = load_file(released / file)
    replace(released / file, {name: tensor for name, tensor in whole.items() if name != key})
    refused(released, rf"{file}: missing key {key}")
    replace(released / file, whole | {"stranger": torch.zeros(1)})
    refused(released, rf"{file}: unexpected key stranger")
    replace(released / file, whole | {key: torch.zeros(128, 3)})
    refused(released, rf"{file}: {key} has shape \(128, 3\), expected")


def test_ranks_must_agree(released: Path) -> None:
    whole = load_file(released / CORE)
    key = "transformer.transformer_blocks.0.attn.to_k.lora_A.weight"
    replace(released / CORE, whole | {key: torch.zeros(5, 64)})
    refused(released, rf"{CORE}: expected LoRA weights of one rank, got ranks \[5, 128\]")


def test_the_continuity_file_may_be_what_its_name_says(released: Path) -> None:
    with (released / CONTINUITY).open("rb") as file:
        weights = torch.load(file, weights_only=True)
    replace(released / CONTINUITY, weights)
    model = checkpoint.load(released, device="cpu", dtype="float32", tasks=("depth",))
    assert torch.equal(model.continuity["depth"].layers[0].weight, weights["lcm.0.weight"])


def test_a_pickle_that_runs_code_is_refused(released: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    (released / CONTINUITY).unlink()
    torch.save({"lcm.0.weight": Trap()}, released / CONTINUITY, pickle_module=pickle)
    refused(released, f"{CONTINUITY}: truncated or not a weight file")
    assert not (tmp_path / "ran").exists()


def test_the_transformer_may_come_in_shards(released: Path) -> None:
    whole = load_file(released / TRANSFORMER)
    expected = checkpoint.load(released, device="cpu", dtype="float32", tasks=("depth",)).state_dict()
    (released / TRANSFORMER).unlink()
    names = sorted(whole)
    shards = {f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for shard, part in shards.items():
        save_file({name: whole[name] for name in part}, released / "transformer" / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (released / f"{TRANSFORMER}.index.json").write_text(json.dumps(index))
    state = checkpoint.load(released, device="cpu", dtype="float32", tasks=("depth",)).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    (released / "transformer" / next(iter(shards))).unlink()
    refused(released, r"00001-of-00002\.safetensors: file not found")
