"""A network of a few thousand parameters and data that it can learn from."""

import pytest
import torch

from lotus2_ros.training.batches import Batch
from lotus2_ros.training.config import NetworkConfig
from lotus2_ros.training.rendered import RenderedGroup, quantize


@pytest.fixture(scope="session")
def network() -> NetworkConfig:
    return NetworkConfig(
        source="scratch", vae_widths=(8, 8, 16), vae_groups=2, latent_channels=4, heads=2, head_size=16,
        rotary_axes=(4, 6, 6), double_blocks=1, single_blocks=1, prompt_tokens=2, core_rank=4, sharpener_rank=2,
        process_resolution=40, sharpener_steps=2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def group() -> RenderedGroup:
    """Six smooth pictures of 32 x 40 with a depth and normals that follow from them."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(6, 3, 4, 5, generator=generator), (32, 40), mode="bilinear")
    image = smooth * 1.9 - 0.95
    fields = {"image": image, "depth": -image[:, :1], "normals": image.flip(1)}
    return RenderedGroup(1.0, {name: torch.from_numpy(quantize(values, name)) for name, values in fields.items()})


@pytest.fixture(scope="session")
def batch(group):
    def make(task: str) -> Batch:
        image, annotation, valid = group.read([0, 3], task)
        return Batch(task, image, annotation, valid, seed=5)

    return make
