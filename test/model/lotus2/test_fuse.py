"""Fusion changes nothing but rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lotus2_ros.model.layers.lora import LoraDelta, LoraLinear
from lotus2_ros.model.lotus2.base import CORE, SHARPENER
from lotus2_ros.model.lotus2.fuse import Fusion, fuse
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.weights import CheckpointError

CPU = torch.device("cpu")
EXACT = 1e-5


def fused(model: TrainableLotus2, precision: str = "float32") -> FusedLotus2:
    return fuse(model.source(), precision, device=CPU, dtype=torch.float32)


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@torch.inference_mode()
def assert_same(model: TrainableLotus2, latent: Tensor, at_most: float = EXACT, precision: str = "float32") -> None:
    """Every stage of every task, at timesteps of any schedule."""
    ours = fused(model, precision)
    for task in model.tasks:
        assert error(ours.core(latent, task), model.core(latent, task)) <= at_most
        assert ours.has_sharpener(task) == model.has_sharpener(task)
        for sigma in (1.0, 0.743, 0.0625) if model.has_sharpener(task) else ():
            assert error(ours.velocity(latent, task, sigma), model.velocity(latent, task, sigma)) <= at_most


@pytest.fixture
def latent(generator: torch.Generator) -> Tensor:
    return torch.randn(1, 4, 6, 10, generator=generator)


def randomize(model: TrainableLotus2) -> TrainableLotus2:
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def test_low_rank_changes(small: TrainableLotus2, latent: Tensor) -> None:
    assert any(isinstance(module, LoraDelta) for module in fused(small).modules())
    assert_same(small, latent)


def test_differences_of_two_adapters(bare: TrainableLotus2, latent: Tensor) -> None:
    """As released: each core predictor is an adapter, so every other stage takes the first one's back."""
    for rank, task in ((2, "depth"), (3, "normals")):
        bare.add_adapter(CORE, task, rank, alpha=5)
        bare.add_adapter(SHARPENER, task, rank + 1)
    ours = fused(randomize(bare))
    assert ours.plan.base == "core_predictor_depth"
    change = ours.transformer.double_blocks[0].image.out.changes["detail_sharpener_normals"]
    assert change.down.weight.shape[0] == 4 + 2
    assert_same(bare, latent)


def test_a_task_without_an_adapter_is_the_base_without_the_first_ones(bare: TrainableLotus2, latent: Tensor) -> None:
    bare.add_adapter(CORE, "depth", 2)
    assert_same(randomize(bare), latent)


def test_large_changes_are_whole_weights(bare: TrainableLotus2, latent: Tensor) -> None:
    bare.add_adapter(CORE, "normals", 64, targets=["to_q", "proj_mlp", "proj_out", "x_embedder"])
    ours = fused(randomize(bare))
    changes = [m.changes["core_predictor_normals"] for m in ours.modules() if isinstance(m, LoraLinear) and m.changes]
    assert changes and not any(isinstance(change, LoraDelta) for change in changes)
    assert_same(bare, latent)


def test_both_forms_of_change_in_one_batch(bare: TrainableLotus2, latent: Tensor) -> None:
    """Attention of the normals' core as whole weights, feed-forward as low rank."""
    bare.add_adapter(CORE, "normals", 10)
    ours = fused(randomize(bare))
    kinds = {
        type(m.changes["core_predictor_normals"]) for m in ours.modules() if isinstance(m, LoraLinear) and m.changes
    }
    assert len(kinds) == 2
    ours.batched = True
    with torch.inference_mode():
        for tasks in (("depth", "normals"), ("normals", "depth")):
            for task, result in ours.predict(latent, tasks).items():
                assert error(result, bare.core(latent, task)) <= EXACT


@torch.inference_mode()
def test_a_batch_of_tasks_is_each_task(small: TrainableLotus2, latent: Tensor) -> None:
    ours = fused(small)
    one_by_one = ours.predict(latent, small.tasks)
    ours.batched = True
    batch = ours.predict(latent, small.tasks)
    assert list(batch) == list(small.tasks)
    assert all(torch.allclose(batch[task], one_by_one[task], atol=1e-5) for task in small.tasks)


@torch.inference_mode()
def test_a_batch_of_images_and_sigmas(small: TrainableLotus2, generator: torch.Generator) -> None:
    latents, sigmas = torch.randn(3, 4, 4, 6, generator=generator), torch.tensor([0.2, 1.0, 0.6])
    ours = fused(small)
    assert error(ours.velocity(latents, "depth", sigmas), small.velocity(latents, "depth", sigmas)) <= EXACT


@pytest.mark.parametrize("rounding", ["float32", "bfloat16"])
def test_timesteps_are_rounded_before_they_are_fused(small: TrainableLotus2, latent: Tensor, rounding: str) -> None:
    small.settings = small.settings.changed(timestep_dtype=rounding)
    small.conditioner.timestep_dtype = rounding
    assert_same(small, latent)


def test_without_guidance(bare: TrainableLotus2, latent: Tensor) -> None:
    transformer = type(bare.transformer)(**{**bare.transformer.config, "guidance_embeds": False})
    model = TrainableLotus2(
        bare.configs,
        transformer,
        bare.settings,
        prompt_embeds=bare.conditioner.prompt_embeds,
        pooled=bare.conditioner.pooled,
    )
    assert_same(randomize(model), latent)


@torch.inference_mode()
def test_image_to_annotation(small: TrainableLotus2) -> None:
    image = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ours = fused(small)
    theirs = [small.decode(small.sharpen(small.core(small.encode(image), t), t, 3).result()) for t in small.tasks]
    for task, expected in zip(small.tasks, theirs, strict=True):
        sharp = ours.sharpen(ours.core(ours.encode(image), task), task, 3).result()
        assert error(ours.decode(sharp), expected) <= EXACT


def test_nothing_constant_is_left(small: TrainableLotus2) -> None:
    names = " ".join(fused(small).transformer.state_dict(prefix="transformer."))
    assert "transformer.prompt" in names
    for constant in ("time_text_embed", "context_embedder", "norm1", ".linear.", "prompt_embeds", "lora"):
        assert constant not in names, constant


def test_parts_are_complete_and_disjoint(small: TrainableLotus2) -> None:
    fusing = Fusion(small.source(), "float32")
    parts = list(fusing.parts())
    names = [name for part in parts for name in part.tensors]
    assert [part.name for part in parts][:2] == ["vae", "ends"]
    assert sorted(names) == sorted(fusing.model.state_dict())
    shapes = {name: tensor.shape for part in parts for name, tensor in part.tensors.items()}
    assert shapes == {name: tensor.shape for name, tensor in fusing.model.state_dict().items()}


@pytest.mark.parametrize(("precision", "at_most"), [("bfloat16", 0.02), ("float8", 0.1), ("int8", 0.05), ("nf4", 0.25)])
def test_precisions_are_near(small: TrainableLotus2, latent: Tensor, precision: str, at_most: float) -> None:
    assert_same(small, latent, at_most, precision)
    ours = fused(small, precision)
    exact = fused(small)
    with torch.inference_mode():
        assert error(ours.core(latent, "depth"), exact.core(latent, "depth")) > 1e-4  # it is another precision


def test_nan_is_named(small: TrainableLotus2) -> None:
    small.transformer.single_transformer_blocks[0].proj_mlp.weight.data[3, 4] = torch.nan
    with pytest.raises(CheckpointError, match=r"single_blocks\.0\.\S+: expected finite numbers, got NaN or Inf"):
        fused(small)


@pytest.mark.parametrize("layer", ["norm1.linear", "norm_out.linear", "context_embedder", "guidance_embedder.linear_1"])
def test_adapters_of_constant_layers_are_refused(bare: TrainableLotus2, layer: str) -> None:
    bare.add_adapter(CORE, "depth", 2, targets=[layer])
    message = rf"core_predictor_depth: expected no LoRA of layers that become constants, got one of \S*{layer}"
    with pytest.raises(CheckpointError, match=message):
        fused(bare.eval())


def test_moving_forgets_what_was_computed(small: TrainableLotus2, latent: Tensor) -> None:
    ours = fused(small)
    with torch.inference_mode():
        ours.core(latent, "depth")
        assert ours.to(torch.bfloat16).core(latent.bfloat16(), "depth").dtype == torch.bfloat16
