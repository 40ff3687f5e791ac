from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.model.lotus2 import flux
from lotus2_ros.model.lotus2.base import CORE, SHARPENER
from lotus2_ros.model.lotus2.trainable import TrainableLotus2


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_unpack_inverts_pack(batch: int, channels: int, rows: int, columns: int) -> None:
    latent = torch.randn(batch, channels, 2 * rows, 2 * columns)
    tokens = flux.pack(latent)
    assert tokens.shape == (batch, rows * columns, 4 * channels)
    assert torch.equal(flux.unpack(tokens, 2 * rows, 2 * columns), latent)


def test_tokens_go_row_by_row_and_their_values_channel_by_channel() -> None:
    latent = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    token = flux.pack(latent)[0, 4]  # second row, second column of 2 x 3 patches
    assert token.tolist() == [14, 15, 20, 21, 38, 39, 44, 45]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage", [CORE, SHARPENER])
def test_a_pass_is_bit_exactly_that_of_diffusers(small: TrainableLotus2, dtype: torch.dtype, stage: str) -> None:
    small.conditioner.timestep_dtype = str(dtype).removeprefix("torch.")
    small.to(dtype)
    small.select(stage, "normals")
    tokens = torch.randn(1, 15, 16, dtype=dtype)
    timestep = 7.4369
    with torch.inference_mode():
        expected = small.transformer(
            hidden_states=tokens,
            encoder_hidden_states=small.conditioner.prompt_embeds,
            pooled_projections=small.conditioner.pooled,
            timestep=torch.tensor([timestep]).to(dtype) / 1000,
            guidance=torch.tensor([3.5]),
            txt_ids=torch.zeros(2, 3),
            img_ids=torch.tensor([[0.0, y, x] for y in range(3) for x in range(5)]),
        ).sample
        ours = flux.transform(small.transformer, tokens, small.conditioner(small.transformer, timestep, 3, 5))
    assert torch.equal(ours, expected)
