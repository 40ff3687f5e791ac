"""Lotus-D and Lotus-G: what their objective asks for, and a run from nothing to a bundle that runs."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from lotus2_ros.config import Config
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.model.lotus.lotus import ANNOTATION, RECONSTRUCTION, TIMESTEP
from lotus2_ros.model.lotus.networks import UnetNetwork
from lotus2_ros.model.prior.config import PriorNetwork
from lotus2_ros.training.config import read_config
from lotus2_ros.training.diffusion import Diffusion
from lotus2_ros.training.lotus import LotusEndToEnd, LotusStep
from lotus2_ros.training.run import train

pytestmark = pytest.mark.slow

RUN = Path(__file__).parents[2] / "config" / "train" / "lotus_d.yaml"
SMALL = [
    "data.shards=1", "data.scenes_per_shard=2", "data.views_per_scene=1",
    "data.buckets=[{height: 96, width: 128, share: 1}]", "network.prior.pretrained=false",
    "network.vae_widths=[8,8,16]", "network.vae_groups=2",
    "network.latent_channels=4", "network.widths=[8,16]", "network.heads=2", "network.groups=4",
    "stages.vae.steps=2", "stages.core_small.steps=2", "stages.core_small.batch=2", "stages.core.steps=2",
    "stages.core.batch=2", "report_every=1",
    "checkpoint_every=1",
]  # fmt: skip


def objective(reconstruction):
    return LotusStep(kind="lotus", reconstruction=reconstruction)


class Asked:
    """Stands for a model: remembers what it is asked, and answers with the image's part of it."""

    vae_factor = 4

    def __init__(self, generative):
        self.generative, self.asked = generative, []
        self.vae = torch.nn.Linear(1, 1).requires_grad_(False)
        self.vae.dtype = torch.float32

    def encode_annotation(self, images):
        return images[:, :, ::4, ::4]

    def without_features(self, latent):
        return latent[:, :3]

    encode = encode_annotation

    def add_features(self, latent, image):
        return latent

    def transform(self, latent, task, switch, timestep=TIMESTEP):
        self.asked.append((latent, task, switch))
        return latent[:, :3]


@pytest.fixture(params=[False, True], ids=["lotus-d", "lotus-g"])
def generative(request):
    return request.param


def test_the_loss_is_that_of_the_annotation_and_of_the_image_again(generative, batch):
    model, given = Asked(generative), batch("depth")
    image, truth = model.encode(given.image), model.encode(given.annotation)
    alone = objective(False).loss(model, given)
    torch.testing.assert_close(alone, (image - truth).square().mean())
    assert [switch for _, _, switch in model.asked] == [ANNOTATION]
    both = objective(True).loss(model, given)
    torch.testing.assert_close(both, alone)  # it gives the image back, so that costs nothing
    assert [switch for _, _, switch in model.asked[1:]] == [ANNOTATION, RECONSTRUCTION]
    model.transform = lambda latent, task, switch, *_: latent[:, :3] + (0.5 if switch == RECONSTRUCTION else 0)
    torch.testing.assert_close(objective(True).loss(model, given), alone + 0.25)


def test_only_the_generative_one_is_given_noise_behind_the_image(generative, batch):
    model, given = Asked(generative), batch("normals")
    objective(True).loss(model, given)
    first, second = (latent for latent, _, _ in model.asked)
    assert torch.equal(first, second)  # one noise for both
    assert torch.equal(first[:, :3], model.encode(given.image)) and first.shape[1] == (6 if generative else 3)
    if generative:
        assert 0.7 < first[:, 3:].std() < 1.3
        objective(True).loss(model, given)
        assert torch.equal(model.asked[2][0], first)  # the batch's own


def small(generative, prior=None):
    network = UnetNetwork(
        source="unet", generative=generative, vae_widths=(8, 8, 16), vae_groups=2, latent_channels=4, widths=(8, 16),
        layers=1, heads=2, groups=4, process_resolution=40,
        prior=prior,
    )  # fmt: skip
    torch.manual_seed(0)
    return network.build(("depth", "normals"), (), torch.device("cpu"))


def end_to_end(weight, decoder=False):
    return LotusEndToEnd(
        kind="lotus_end_to_end", reconstruction=True, decoded=weight, angles=weight, power=1, relative=weight,
        decoder=decoder,
    )  # fmt: skip


def test_end_to_end_adds_what_comes_of_the_latent(generative, batch):
    model, given = small(generative), batch("depth")
    latents = objective(True).loss(model, given).item()
    once, thrice = (end_to_end(weight).loss(model, given).item() for weight in (1.0, 3.0))
    assert once > latents and thrice - latents == pytest.approx(3 * (once - latents), rel=1e-4)


@pytest.mark.parametrize("decoder", [False, True])
def test_end_to_end_trains_the_decoder_if_that_is_said(decoder, batch):
    model = small(False).requires_grad_(False)
    parameters = model.trainable_parameters(end_to_end(1.0, decoder).part())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    end_to_end(1.0, decoder).loss(model, batch("normals")).backward()
    reached = {name.split(".")[1] for name, parameter in parameters.items() if parameter.grad is not None}
    assert reached == ({"normals", "decoder"} if decoder else {"normals"})  # of the U-Nets, and of the VAE


def test_a_diffusion_trains_a_generative_network(batch):
    model, given = small(True), batch("depth")
    diffusion = Diffusion(kind="diffusion", prediction="clean", time_steps=10, steps=2, reconstruction=True)
    parameters = model.requires_grad_(False).trainable_parameters(diffusion.part())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    diffusion.loss(model, given).backward()
    assert all(p.grad is not None for name, p in parameters.items() if name.startswith("unets.depth.time_embedding"))
    first, last = diffusion.estimates(model, model.encode(given.image), "depth", given.generator())
    assert first.shape == last.shape == (2, 4, 8, 10) and not torch.allclose(first, last)


def test_a_real_network_learns_by_it(generative, batch):
    model = small(generative)
    assert model.family == ("lotus-g" if generative else "lotus-d")
    parameters = model.trainable_parameters("core")
    assert parameters and all(name.startswith("unets.") for name in parameters)
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    loss = objective(True).loss(model, batch("normals"))
    loss.backward()
    reached = {name for name, parameter in parameters.items() if parameter.grad is not None and parameter.grad.any()}
    assert torch.isfinite(loss) and reached and all(name.startswith("unets.normals.") for name in reached)
    latent = model.encode(batch("normals").image)
    assert objective(True).predict(model, latent, "normals", batch("normals").generator()).shape == latent.shape


def test_features_of_a_prior_are_beside_the_latent(generative, batch):
    prior = PriorNetwork(backbone="efficientnet-lite0", hidden=8, channels=3, pretrained=False)
    model, given = small(generative, prior), batch("normals")
    latent = model.encode(given.image)
    assert latent.shape[1] == 4 + 3 and model.multiple == 8
    assert model.generative == generative and model.noise_channels == (4 if generative else 0)
    parameters = model.trainable_parameters("core")
    assert any(name.startswith("prior.perceptron.") for name in parameters)
    assert not any(name.startswith("prior.backbone.") for name in parameters)
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    objective(True).loss(model, given).backward()
    assert all(float(p.grad.abs().sum()) > 0 for name, p in parameters.items() if name.startswith("prior."))
    answer = model.predict(latent[:1], ("normals",))["normals"]
    other = torch.cat((latent[:1, :4], latent[:1, 4:].flip(-1)), dim=1)
    assert torch.equal(answer[:, 4:], latent[:1, 4:])  # carried along, as in a Lotus-2
    assert not torch.allclose(answer[:, :4], model.predict(other, ("normals",))["normals"][:, :4], atol=1e-4)
    assert model.decode(answer).shape == (1, 3, 32, 40)


def test_a_run_gives_a_bundle_that_runs(generative, tmp_path):
    config = read_config(RUN, [*SMALL, f"network.generative={str(generative).lower()}"])
    train(config, tmp_path / "work", tmp_path / "model", 1)
    estimator = load_estimator(Config().updated({"model.path": str(tmp_path / "model"), "model.samples": 2}))
    image = torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8)
    geometry = estimator.predict(image)
    assert geometry.disparity.shape == (90, 120) and geometry.normals.shape == (90, 120, 3)
    assert (geometry.uncertainty is not None) == generative
    assert estimator.model.name == "lotus-d-small" and estimator.model.process_size(90, 120, 160) == (88, 112)


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (
            RUN,
            "stages.core.objective={kind: single_step, prediction: clean, continuity: true}",
            r"objectives for network.source unet \(.*\), got single_step",
        ),
        (
            RUN,
            "stages.core.objective={kind: diffusion, prediction: clean, time_steps: 1, steps: 1, reconstruction: true}",
            "network.generative: true",
        ),
        (
            RUN.with_name("without_prior.yaml"),
            "stages.core.objective={kind: lotus, reconstruction: true}",
            r"objectives for network.source scratch \(.*\), got lotus",
        ),
        (
            RUN.with_name("without_prior.yaml"),
            "stages.core.objective={kind: lotus_end_to_end, reconstruction: true, decoded: 1, angles: 1, power: 1}",
            r"objectives for network.source scratch \(.*\), got lotus_end_to_end",
        ),
    ],
)
def test_objectives_must_fit_the_network(path, change, message):
    with pytest.raises((ValueError, ValidationError), match=f"expected {message}"):
        read_config(path, [change])
