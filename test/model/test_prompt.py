"""The embedding of the empty prompt: layer by layer, in a dtype that is fast, on the CPU if the GPU is too small."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Block

from lotus2_ros.model import prompt
from lotus2_ros.model.prompt import embed_empty_prompt, embed_with_t5

CPU = torch.device("cpu")
IDS = torch.tensor([[1] + [0] * 15])


@pytest.fixture
def encoder(shared: Path) -> Path:
    return shared / "golden" / "tiny-flux" / "text_encoder_2"


def by_the_library(folder: Path, dtype: torch.dtype) -> Tensor:
    with torch.no_grad():
        return T5EncoderModel.from_pretrained(folder).to(dtype)(IDS).last_hidden_state


def test_layer_by_layer_the_result_is_the_library_s(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_the_library(encoder, torch.float32)
    loaded: list[int] = []
    forward = T5Block.forward

    def watched(self: T5Block, *args: object, **kwargs: object) -> object:
        alive = [block for block in watched.all if not next(block.parameters()).is_meta]  # type: ignore[attr-defined]
        loaded.append(len(alive))
        return forward(self, *args, **kwargs)

    opened = prompt._open_t5

    def open_t5(folder: Path) -> object:
        model, weights = opened(folder)
        watched.all = list(model.encoder.block)  # type: ignore[attr-defined]
        return model, weights

    monkeypatch.setattr(T5Block, "forward", watched)
    monkeypatch.setattr(prompt, "_open_t5", open_t5)
    assert torch.equal(embed_with_t5(encoder, IDS, CPU), expected)
    assert loaded == [1] * len(watched.all) and len(loaded) > 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("multiplies", [True, False])
def test_bfloat16_only_where_it_is_fast(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multiplies: bool
) -> None:
    weights = {key: tensor.bfloat16() for key, tensor in load_file(encoder / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((encoder / "config.json").read_bytes())
    monkeypatch.setattr(prompt, "multiplies_bfloat16", lambda device: multiplies)
    dtype = torch.bfloat16 if multiplies else torch.float32
    embedded = embed_with_t5(tmp_path, IDS, CPU)
    assert embedded.dtype == dtype
    assert torch.equal(embedded, by_the_library(tmp_path, dtype))


def test_the_table_of_tokens_has_two_names(encoder: Path, tmp_path: Path) -> None:
    weights = load_file(encoder / "model.safetensors")
    expected = embed_with_t5(encoder, IDS, CPU)
    weights["encoder.embed_tokens.weight"] = weights.pop("shared.weight")
    weights["decoder.block.0.layer.0.SelfAttention.q.weight"] = torch.zeros(2, 2)  # of a whole T5
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((encoder / "config.json").read_bytes())
    assert torch.equal(embed_with_t5(tmp_path, IDS, CPU), expected)


def test_the_cpu_takes_over_where_the_gpu_is_too_small(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    embed, devices = prompt._embed_on, []

    def small_gpu(device: torch.device, folder: Path) -> tuple[Tensor, Tensor]:
        devices.append(device.type)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.50 GiB")
        return embed(device, folder)

    monkeypatch.setattr(prompt, "_embed_on", small_gpu)
    embedded = embed_empty_prompt(encoder.parent, device=torch.device("cuda"))
    assert devices == ["cuda", "cpu"]
    assert all(map(torch.equal, embedded, embed(CPU, encoder.parent)))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cuda has too little memory for the text encoders, so they run on the CPU" in caplog.text


def test_other_errors_of_the_gpu_are_not_hidden(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device, folder: Path) -> tuple[Tensor, Tensor]:
        raise RuntimeError("CUDA error: an illegal instruction was encountered")

    monkeypatch.setattr(prompt, "_embed_on", broken)
    with pytest.raises(RuntimeError, match="illegal instruction"):
        embed_empty_prompt(encoder.parent, device=torch.device("cuda"))
