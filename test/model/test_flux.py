from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.model import flux
from lotus2_ros.model.lotus2 import CORE, SHARPENER, Lotus2


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


def test_position_ids_are_row_then_column(small: Lotus2) -> None:
    cosine, _ = flux.rotary_embedding(small.transformer, 2, 3, 5, torch.device("cpu"))
    ids = torch.tensor([[0, 0, 0], [0, 0, 0]] + [[0, y, x] for y in range(3) for x in range(5)])
    assert torch.equal(cosine, small.transformer.pos_embed(ids)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage", [CORE, SHARPENER])
def test_a_pass_is_bit_exactly_that_of_diffusers(small: Lotus2, dtype: torch.dtype, stage: str) -> None:
    small.conditioning = str(dtype).removeprefix("torch.")
    small.to(dtype)
    small.select(stage, "normals")
    tokens = torch.randn(1, 15, 16, dtype=dtype)
    timestep = 7.4369
    with torch.inference_mode():
        expected = small.transformer(
            hidden_states=tokens,
            encoder_hidden_states=small.prompt_embeds,
            pooled_projections=small.pooled,
            timestep=torch.tensor([timestep]).to(dtype) / 1000,
            guidance=torch.tensor([3.5]),
            txt_ids=torch.zeros(2, 3),
            img_ids=torch.tensor([[0.0, y, x] for y in range(3) for x in range(5)]),
        ).sample
        ours = flux.transform(small.transformer, tokens, small.condition(timestep, 3, 5))
    assert torch.equal(ours, expected)


@pytest.fixture
def seen(small: Lotus2, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the embedder of timestep and guidance is given."""
    values: dict[str, float] = {}

    def record(timestep: torch.Tensor, guidance: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        values.update(timestep=timestep.item(), guidance=guidance.item())
        return torch.zeros(1, 32)

    monkeypatch.setattr(small.transformer.time_text_embed, "forward", record)
    return values


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("rounding", "timestep", "rounded", "guidance"),
    [
        ("bfloat16", 1.0, 1.0, 3504.0),
        ("bfloat16", 10.0, 10.0, 3504.0),
        ("bfloat16", 9.4568, 9.4375, 3504.0),
        ("bfloat16", 6.5921, 6.59375, 3504.0),
        ("bfloat16", 1.7691, 1.765625, 3504.0),
        ("float32", 1.0, 1.0, 3500.0),
        ("float32", 9.4568, 9.4568, 3500.0),
    ],
)
def test_conditioning_is_rounded_on_its_own(
    small: Lotus2,
    seen: dict[str, float],
    compute: torch.dtype,
    rounding: str,
    timestep: float,
    rounded: float,
    guidance: float,
) -> None:
    small.to(compute)
    small.conditioning = rounding
    small.condition(timestep, 2, 2)
    assert seen["guidance"] == guidance
    assert seen["timestep"] == pytest.approx(rounded, rel=1e-6)
