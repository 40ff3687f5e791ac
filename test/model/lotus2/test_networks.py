"""Networks from scratch that begin with the VAE of a bundle."""

from pathlib import Path

import pytest
import torch

from lotus2_ros.model.lotus2.networks import ScratchNetwork
from lotus2_ros.training.config import read_config

SMOKE = Path(__file__).parents[3] / "config/train/smoke.yaml"
PRIOR = {"backbone": "efficientnet-lite0", "hidden": 8, "channels": 3, "pretrained": False}


@pytest.fixture
def config():
    return read_config(SMOKE, [])


@pytest.fixture
def build(config):
    def build(seed: int, **changes):
        torch.manual_seed(seed)
        network = ScratchNetwork.model_validate(config.network.model_dump(exclude_unset=True) | changes)
        return network, network.build(config.tasks, config.stages, torch.device("cpu"))

    return build


@pytest.fixture
def bundle(build, tmp_path):
    network, model = build(1)
    model.vae.scale_latents(scale=0.5, shift=0.25)
    network.save(model, tmp_path / "bundle", {"name": "small", "licence": "none"})
    return tmp_path / "bundle"


def stored(model, prefix: str) -> dict[str, torch.Tensor]:
    return {name: value.half() for name, value in model.state_dict().items() if name.startswith(prefix)}


def same(model, other, prefix: str) -> list[bool]:
    theirs = stored(other, prefix)
    return [bool((value == theirs[name]).all()) for name, value in stored(model, prefix).items() if "norm" not in name]


def test_vae_takes_the_vae_of_a_bundle_and_nothing_else(build, bundle):
    _, model = build(1)
    _, begun = build(2, vae=bundle, prior=PRIOR)
    assert all(same(model, begun, "vae."))
    assert not any(same(model, begun, "transformer.single_transformer_blocks.0.proj_mlp.weight"))
    assert (begun.vae.config.scaling_factor, begun.vae.config.shift_factor) == (0.5, 0.25)


def test_a_vae_of_another_design_is_refused(build, bundle):
    with pytest.raises(ValueError, match=r"expected a bundle with a VAE of the network's design, got another vae\."):
        build(2, vae=bundle, latent_channels=4)
