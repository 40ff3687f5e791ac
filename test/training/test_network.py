"""A network that grows: a stage may train its first blocks alone, and those that come later change nothing at first."""

import pytest
import torch

from lotus2_ros.training.config import StageConfig

OBJECTIVE = {"kind": "single_step", "prediction": "clean", "continuity": True}
CPU = torch.device("cpu")
STAGE = {"objective": OBJECTIVE, "steps": 1, "batch": 1, "learning_rate": 1e-3}


@pytest.fixture
def model(network):
    stages = tuple(StageConfig(name=f"of_{blocks}", single_blocks=blocks, **STAGE) for blocks in (1, None))
    torch.manual_seed(0)
    model = network.model_copy(update={"single_blocks": 3}).build(("depth", "normals"), stages, CPU)
    return model.eval().requires_grad_(False)


def answers(model, latent):
    return [model.core(latent, task) for task in ("depth", "normals")]


def test_new_blocks_change_nothing_until_they_are_trained(model, generator):
    latent = torch.randn(1, 4, 8, 10, generator=generator)
    with model.first_blocks(1):
        before = answers(model, latent)
    assert len(model.transformer.single_transformer_blocks) == 3
    for small, grown in zip(before, answers(model, latent), strict=True):
        torch.testing.assert_close(grown, small, rtol=0, atol=0)
    torch.nn.init.normal_(model.transformer.single_transformer_blocks[2].proj_out.weight)
    for small, trained in zip(before, answers(model, latent), strict=True):
        assert (trained - small).abs().max() > 1e-3


def test_a_shallow_stage_trains_the_blocks_that_it_has(model):
    whole = model.trainable_parameters("core")
    with model.first_blocks(1):
        first = model.trainable_parameters("core")
    left_out = whole.keys() - first.keys()
    assert first.keys() < whole.keys()
    assert left_out == {name for name in whole if "single_transformer_blocks.1." in name or "_blocks.2." in name}


def test_a_stage_that_fails_leaves_the_network_whole(model):
    with pytest.raises(RuntimeError, match="on the way"), model.first_blocks(1):
        raise RuntimeError("on the way")
    assert len(model.transformer.single_transformer_blocks) == 3


def test_a_network_that_does_not_grow_has_no_block_that_adds_nothing(network):
    model = network.build(("depth",), (StageConfig(name="whole", **STAGE),), CPU)
    assert all(block.proj_out.weight.abs().max() > 0 for block in model.transformer.single_transformer_blocks)
