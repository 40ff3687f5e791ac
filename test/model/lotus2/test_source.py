"""What fusion takes from diffusers and PEFT: names and shapes of weights, noise levels, embeddings, positions."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.transformers.transformer_flux import FluxPosEmbed

from lotus2_ros.model.lotus2.conditioning import embed_timestep, position_ids, rounded_guidance
from lotus2_ros.model.lotus2.fuse import Fusion
from lotus2_ros.model.lotus2.fused_flux import ROTARY_BASE
from lotus2_ros.model.lotus2.scheduler import Scheduler
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.weights import stored_state


@pytest.mark.parametrize("kind", ["bare", "small", "with_prior"])
def test_a_source_knows_the_weights_of_its_trainable_model(kind: str, request: pytest.FixtureRequest) -> None:
    model: TrainableLotus2 = request.getfixturevalue(kind)
    expected = {name: tensor.shape for name, tensor in stored_state(model).items()}
    assert {name: tensor.shape for name, tensor in model.source().shapes().items()} == expected


@torch.inference_mode()
def test_the_trainable_model_of_a_source(small: TrainableLotus2) -> None:
    again = TrainableLotus2.load(small.source(), torch.device("cpu"), torch.float32)
    assert again.configs == small.configs and again.source().adapters == small.source().adapters
    latent = torch.randn(1, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.velocity(latent, "depth", 0.5), small.velocity(latent, "depth", 0.5))


@pytest.mark.parametrize("config", [{}, {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True}])
def test_noise_levels_are_those_of_diffusers(config: dict) -> None:
    theirs, ours = FlowMatchEulerDiscreteScheduler(**config), Scheduler(**config)
    assert ours.model_dump() == {key: value for key, value in theirs.config.items() if not key.startswith("_")}
    for steps, tokens, shift in ((1, 256, 0.5), (10, 4096, 1.15), (7, 2176, 0.825)):
        sigmas = [(steps - i) / steps for i in range(steps)]
        theirs.set_timesteps(sigmas=sigmas, mu=shift if ours.use_dynamic_shifting else None)
        assert ours.sigmas(steps, tokens) == theirs.sigmas.tolist()


@torch.inference_mode()
def test_the_embedding_of_timesteps_is_that_of_diffusers(small: TrainableLotus2) -> None:
    theirs = small.transformer.time_text_embed
    timesteps, guidance, pooled = torch.tensor([0.0, 1.0, 7.25]), rounded_guidance("bfloat16"), torch.randn(1, 4)
    expected = torch.nn.functional.silu(theirs(timesteps, guidance, pooled))
    assert torch.equal(embed_timestep(timesteps, guidance, pooled, theirs.state_dict().__getitem__), expected)


@torch.inference_mode()
def test_the_rotary_embedding_is_that_of_diffusers(small: TrainableLotus2) -> None:
    fused = Fusion(small.source(), "float32").model.transformer
    fused.prompt = torch.zeros(1, 2, 32)
    cosine, sine = FluxPosEmbed(ROTARY_BASE, (4, 6, 6))(position_ids(fused.prompt, 3, 5))
    ours = fused.rotary(3, 5)
    half = cosine.shape[1] // 2
    assert torch.equal(ours[0][:, 0, :half], cosine[:, ::2]) and torch.equal(ours[0][:, 0, half:], cosine[:, 1::2])
    assert torch.equal(ours[1][:, 0, half:], sine[:, ::2]) and torch.equal(ours[1][:, 0, :half], -sine[:, ::2])
