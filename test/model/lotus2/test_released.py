from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel

from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2.released import load_released, open_released
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.weights import CheckpointError

CORE = "lotus-2_core_predictor_depth.safetensors"
CONTINUITY = "lotus-2_lcm_depth.safetensors"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def replace(path: Path, weights: dict[str, torch.Tensor]) -> None:
    path.unlink()
    save_file(weights, path)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^[^\n]*{message}[^\n]*$"):
        load_model(folder, device="cpu", dtype="float32", tasks=("depth",))


def load(folder: Path) -> TrainableLotus2:
    return load_released(folder, device=torch.device("cpu"), dtype=torch.float32, tasks=("depth",))


def test_a_task_needs_only_its_own_files(released: Path) -> None:
    for file in released.glob("*_normal.safetensors"):
        file.unlink()
    model = load(released)
    assert sorted(model.adapters) == ["core_predictor_depth", "detail_sharpener_depth"]
    assert (model.settings.process_resolution, model.settings.timestep_dtype, model.multiple) == (1024, "bfloat16", 16)
    assert model.adapters["core_predictor_depth"].r == model.adapters["core_predictor_depth"].lora_alpha == 128
    assert (model.conditioner.prompt_embeds.shape, model.conditioner.pooled.shape) == ((1, 512, 32), (1, 24))
    with pytest.raises(CheckpointError, match=r"lotus-2_core_predictor_normal\.safetensors: file not found"):
        load_model(released, device="cpu", dtype="float32")


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
    refused(released, rf"{file}: expected {key} of shape .* got \(128, 3\)")


def test_ranks_must_agree(released: Path) -> None:
    whole = load_file(released / CORE)
    key = "transformer.transformer_blocks.0.attn.to_k.lora_A.weight"
    replace(released / CORE, whole | {key: torch.zeros(5, 64)})
    refused(released, rf"{CORE}: expected LoRA weights of one rank, got ranks \[5, 128\]")


def test_the_continuity_file_may_be_what_its_name_says(released: Path) -> None:
    with (released / CONTINUITY).open("rb") as file:
        weights = torch.load(file, weights_only=True)
    replace(released / CONTINUITY, weights)
    model = load(released)
    assert torch.equal(model.continuity["depth"].layers[0].weight, weights["lcm.0.weight"])


def test_a_pickle_that_runs_code_is_refused(released: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    (released / CONTINUITY).unlink()
    torch.save({"lcm.0.weight": Trap()}, released / CONTINUITY, pickle_module=pickle)
    refused(released, f"{CONTINUITY}: truncated or not a weight file")
    assert not (tmp_path / "ran").exists()


def shard(released: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The transformer in two shards with an index; returns what is in them."""
    whole = load_file(released / TRANSFORMER)
    (released / TRANSFORMER).unlink()
    names = sorted(whole)
    shards = {
        f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors": {name: whole[name] for name in names[i::2]}
        for i in range(2)
    }
    for name, part in shards.items():
        save_file(part, released / "transformer" / name)
    write_index(released, {key: name for name, part in shards.items() for key in part})
    return shards


def write_index(released: Path, weight_map: object) -> None:
    (released / f"{TRANSFORMER}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_the_transformer_may_come_in_shards(released: Path) -> None:
    expected = load(released).state_dict()
    first = next(iter(shard(released)))
    state = load(released).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    (released / "transformer" / first).unlink()
    refused(released, r"00001-of-00002\.safetensors: file not found")


def test_index_and_shards_must_agree(released: Path) -> None:
    shards = shard(released)
    (first, inside), (second, _) = shards.items()
    index = {key: name for name, part in shards.items() for key in part}
    key = next(iter(inside))
    write_index(released, [])
    refused(released, r"index\.json: expected a weight_map from keys to files")
    write_index(released, index | {"stranger": first})
    refused(released, rf"transformer/{first}: missing key stranger")
    write_index(released, index | {key: second})
    refused(released, rf"transformer/{first}: unexpected key {key}")
    write_index(released, {name: home for name, home in index.items() if name != key})
    refused(released, rf"transformer/{first}: unexpected key {key}")
    save_file({name: tensor for name, tensor in inside.items() if name != key}, released / "transformer" / first)
    refused(released, rf"index\.json: missing key {key}")
    save_file(inside | {key: torch.zeros(2, 3)}, released / "transformer" / first)
    write_index(released, index)
    refused(released, rf"transformer/{first}: expected {key} of shape .* got \(2, 3\)")


def test_flux_and_lotus2_may_be_in_different_folders(released: Path, tmp_path: Path) -> None:
    expected = load(released)
    (tmp_path / "lotus2").mkdir()
    for file in released.glob("lotus-2_*_depth.safetensors"):
        file.rename(tmp_path / "lotus2" / file.name)
    source = open_released(released, tmp_path / "lotus2", tasks=("depth",))
    for name in ("continuity.depth.layers.2.bias", "vae.encoder.conv_in.weight", "transformer.proj_out.bias"):
        assert torch.equal(source.read(name), expected.state_dict()[name])
    assert all(torch.equal(a, b) for a, b in zip(source.embed_prompt(), expected.conditioner.buffers(), strict=True))
    with pytest.raises(CheckpointError, match=rf"{released}/lotus-2_core_predictor_depth\.safetensors: file not found"):
        open_released(released, released, tasks=("depth",))


def test_nothing_is_read_before_all_headers_are_right(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with the last file is told at once, not after an hour."""
    monkeypatch.setattr("lotus2_ros.model.weights.WeightFile.read", lambda *_: pytest.fail("a tensor was read"))
    open_released(released, released)
    encoder = released / "text_encoder_2" / "model.safetensors"
    content = encoder.read_bytes()
    encoder.unlink()
    encoder.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"text_encoder_2/model\.safetensors: truncated"):
        open_released(released, released)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_must_be_finite(released: Path, bad: float) -> None:
    whole = load_file(released / CORE)
    key = "transformer.transformer_blocks.0.attn.to_k.lora_A.weight"
    damaged = whole[key].clone()
    damaged[3, 5] = bad
    replace(released / CORE, whole | {key: damaged})
    refused(released, rf"{CORE}: {key} has NaN or infinite values")


def test_the_encoders_must_fit_the_transformer(released: Path) -> None:
    folder = released / "text_encoder_2"
    config = T5Config.from_pretrained(folder, d_model=16)
    shutil.rmtree(folder)
    T5EncoderModel(config).save_pretrained(folder)
    refused(released, r"text_encoder_2: expected a prompt embedding of shape \(1, 512, 32\), .* got \(1, 512, 16\)")


@pytest.mark.parametrize("change", ["missing", "unexpected", "mismatched"])
@pytest.mark.parametrize(
    ("component", "key"),
    [
        ("text_encoder", "text_model.final_layer_norm.weight"),
        ("text_encoder_2", "encoder.final_layer_norm.weight"),
    ],
)
def test_an_encoder_has_all_keys_and_no_other(
    released: Path, component: str, key: str, change: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = released / component / "model.safetensors"
    whole = load_file(file)
    changed = {"missing": {}, "unexpected": {key: whole[key], "key": torch.ones(3)}, "mismatched": {key: torch.ones(3)}}
    replace(file, {name: tensor for name, tensor in whole.items() if name != key} | changed[change])
    kind = f"{change} keys?" if change != "mismatched" else rf"({change} keys|expected {key} of shape)"
    refused(released, rf"{component}[^ ]*: {kind}.*")
    assert capfd.readouterr().err == ""
