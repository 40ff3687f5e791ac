from __future__ import annotations

import pytest
import torch

from lotus2_ros.model.lotus2.base import Lotus2


def test_position_ids_are_row_then_column(small: Lotus2) -> None:
    cosine, _ = small.conditioner(small.transformer, 1.0, 3, 5).rotary
    ids = torch.tensor([[0, 0, 0], [0, 0, 0]] + [[0, y, x] for y in range(3) for x in range(5)])
    assert torch.equal(cosine, small.transformer.pos_embed(ids)[0])


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
    small.conditioner.timestep_dtype = rounding
    small.conditioner(small.transformer, timestep, 2, 2)
    assert seen["guidance"] == guidance
    assert seen["timestep"] == pytest.approx(rounded, rel=1e-6)
