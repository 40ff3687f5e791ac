"""The VAE is that of diffusers, bit for bit, under the same names of weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL
from pydantic import ValidationError

from lotus2_ros.model.vae import Vae, VaeConfig

PLAIN = {
    "block_out_channels": [8, 8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 4,
}
BARE = PLAIN | {"mid_block_add_attention": False, "use_quant_conv": False, "use_post_quant_conv": False}


@pytest.mark.parametrize("config", [PLAIN, BARE], ids=["attention", "bare"])
@torch.inference_mode()
def test_encoder_and_decoder_equal_those_of_diffusers(config: dict, generator: torch.Generator) -> None:
    theirs = AutoencoderKL(**config).eval()
    ours = Vae(VaeConfig(**config)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.randn(2, 3, 24, 40, generator=generator)
    expected, found = theirs.encode(image).latent_dist, ours.encode(image)
    assert found.mean.shape == (2, 4, 6, 10)
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.std, expected.std)
    seeds = (torch.Generator().manual_seed(7) for _ in range(2))
    assert torch.equal(found.sample(next(seeds)), expected.sample(next(seeds)))
    assert torch.equal(ours.decode(found.mean), theirs.decode(found.mean).sample)


def test_the_config_has_the_keys_and_defaults_of_diffusers() -> None:
    theirs = {key: value for key, value in AutoencoderKL().config.items() if not key.startswith("_")}
    assert VaeConfig().model_dump() == theirs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up_block_types": ["UpDecoderBlock2D"]}, "expected as many block types as block_out_channels, 3"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "'DownEncoderBlock2D'"),
        ({"act_fn": "relu"}, "'silu'"),
        ({"color": "red"}, "color"),
    ],
)
def test_what_is_not_built_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VaeConfig(**PLAIN | change)
