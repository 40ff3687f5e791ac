"""Views that are encoded once give the loss and the gradients of the images."""

import pytest
import torch

from benchmarks import ablation_data
from benchmarks.ablation_data import EncodedBatches, encode_once, given_latents
from lotus2_ros.model.lotus2.networks import ScratchNetwork
from lotus2_ros.model.prior.config import PriorNetwork
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.objectives import SingleStep
from lotus2_ros.training.rendered import RenderedGroup, quantize


@pytest.fixture
def group(generator, monkeypatch) -> RenderedGroup:
    """Five views of 32 x 40, which nothing degrades."""
    for change in ("jitter", "degrade"):
        monkeypatch.setattr(ablation_data, change, lambda image, generator: image)
    fields = {"image": torch.rand(5, 3, 32, 40, generator=generator), "depth": torch.rand(5, 1, 32, 40)}
    stored = {name: torch.from_numpy(quantize(values, name)) for name, values in fields.items()}
    return RenderedGroup(1.0, stored, shift=torch.zeros(5))


@pytest.mark.parametrize("patch", [1, 2])
def test_a_step_on_encoded_views_is_that_on_the_images(group, patch):
    model = small(
        patch=patch, prior=PriorNetwork(backbone="efficientnet-lite0", hidden=8, channels=3, pretrained=False)
    )
    objective = SingleStep(kind="single_step", prediction="clean", continuity=True)
    encoded = encode_once(model, group, 1.0, 8)
    batch = EncodedBatches([encoded], 12, model.vae_factor, seed=1)[0]
    chosen = [int((encoded.image == image).flatten(1).all(1).nonzero()[0]) for image in batch.image]
    assert len(set(chosen)) > 1 and {number % 2 for number in chosen} == {0, 1}  # every second one is mirrored
    image, annotation, valid, shift = group.read(chosen, "depth")
    mirrored = torch.tensor(chosen)[:, None, None, None] % 2 == 0
    image, annotation = (torch.where(mirrored, values.flip(-1), values) for values in (image, annotation))
    with given_latents(model):
        found = loss_and_gradient(objective, model, batch)
    expected = loss_and_gradient(objective, model, Batch("depth", image, annotation, valid, shift, batch.seed))
    for result, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-3, atol=1e-6)
    assert float(expected[1].abs().sum()) > 0


def test_a_part_of_the_views_is_spread_over_all(group):
    encoded = encode_once(small(), group, 0.5, 8)
    assert encoded.image.shape == (5, 4, 4, 4) and encoded.annotation.shape == (5, 4, 4, 4)
    assert torch.equal(encoded.every(2).image, encoded.image[[0, 2, 4]])
    assert torch.equal(encoded.every(2).annotation, encoded.annotation[[0, 2, 4]])


def small(**changes):
    torch.manual_seed(0)
    network = ScratchNetwork(
        source="scratch", vae_widths=(8, 8, 16), vae_groups=2, latent_channels=4, heads=2, head_size=16,
        rotary_axes=(4, 6, 6), double_blocks=1, single_blocks=1, prompt_tokens=2, core_rank=4, sharpener_rank=2,
        process_resolution=40, sharpener_steps=2, **changes,
    )  # fmt: skip
    return network.build(("depth",), (), torch.device("cpu"))


def loss_and_gradient(objective, model, batch):
    model.zero_grad()
    loss = objective.loss(model, batch)
    loss.backward()
    return loss.detach(), model.prior.perceptron[0].weight.grad.clone()
