from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter

from lotus2_ros.model.lotus2.scheduler import Scheduler
from lotus2_ros.training import objectives
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.latents import latent_valid


def objective(kind, **fields):
    return TypeAdapter(objectives.Objective).validate_python({"kind": kind, **fields})


ALL = {
    "stochastic_flow": objective("stochastic_flow", steps=3),
    "deterministic_flow": objective("deterministic_flow", steps=3),
    "clean": objective("single_step", prediction="clean", continuity=False),
    "residual": objective("single_step", prediction="residual", continuity=False),
    "continuity": objective("single_step", prediction="clean", continuity=True),
    "end_to_end": objective("end_to_end", prediction="clean", continuity=True, decoded=1.0, angles=2.0, power=2),
    "with_decoder": objective(
        "end_to_end", prediction="clean", continuity=True, decoded=1.0, angles=2.0, power=1, decoder=True
    ),
    "sharpener": objective("sharpener"),
}
END_TO_END = ("end_to_end", "with_decoder")


class Perfect:
    """Stands for a network that has learnt everything: it knows the truth of the one image it is asked about."""

    def __init__(self, image, truth, answer):
        self.image, self.truth, self.answer, self.vae_factor = image, truth, answer, 4
        self.scheduler = Scheduler(num_train_timesteps=10)
        self.continuity = {"depth": lambda latent: latent}
        self.asked = []

    def transform(self, latent, stage, task, timestep):
        self.asked.append((latent, stage, timestep))
        return self.answer(self, latent, timestep)

    def core(self, image, task):
        return 0.5 * (self.image + self.truth)

    def velocity(self, latent, task, sigma):
        self.asked.append((latent, "velocity", sigma))
        return self.core(self.image, task) - self.truth

    def without_features(self, latent):
        return latent

    def carry_features(self, latent, given):
        return latent


@pytest.fixture
def latents():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, 6, 8, generator=generator), torch.randn(2, 4, 6, 8, generator=generator)


def perfect_answers():
    """What the equation of each objective asks of the network."""

    def noise_minus_truth(model, latent, timestep):
        # z_t = t e + (1 - t) z_y, so e - z_y = (z_t - z_y) / t
        time = torch.as_tensor(timestep).reshape(-1, 1, 1, 1) / 10
        return (latent[:, : latent.shape[1] // 2] - model.truth) / time

    return {
        "stochastic_flow": noise_minus_truth,
        "deterministic_flow": lambda model, latent, timestep: model.image - model.truth,
        "clean": lambda model, latent, timestep: model.truth,
        "residual": lambda model, latent, timestep: model.image - model.truth,
        "continuity": lambda model, latent, timestep: model.truth,
        **dict.fromkeys(END_TO_END, lambda model, latent, timestep: model.truth),
        "sharpener": lambda model, latent, timestep: pytest.fail("the sharpener asks for a velocity"),
    }


@pytest.mark.parametrize("name", [name for name in ALL if name not in END_TO_END])
def test_a_network_that_answers_the_equation_has_no_error(name, latents):
    image, truth = latents
    model = Perfect(image, truth, perfect_answers()[name])
    error = ALL[name].error(model, "depth", image, truth, torch.Generator().manual_seed(0))
    assert error.shape == truth.shape and float(error.abs().max()) < 1e-4
    wrong = Perfect(image, truth, lambda model, latent, timestep: model.truth + 1)
    if name != "sharpener":
        error = ALL[name].error(wrong, "depth", image, truth, torch.Generator().manual_seed(0))
        assert float(error.abs().max()) > 0.5


@pytest.mark.parametrize("name", [name for name in ALL if name != "sharpener"])
def test_a_network_that_answers_the_equation_predicts_the_truth(name, latents):
    image, truth = latents
    model = Perfect(image, truth, perfect_answers()[name])
    predicted = ALL[name].predict(model, image, "depth", torch.Generator().manual_seed(0))
    torch.testing.assert_close(predicted, truth, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("first_step", "lowest", "highest"), [(0.5, 0.3, 0.7), (1.0, 1.0, 1.0)])
def test_the_sharpener_is_judged_by_where_its_flow_ends(latents, monkeypatch, first_step, lowest, highest):
    image, truth = latents
    sharpener = objectives.SharpenerEndToEnd(
        kind="sharpener_end_to_end", first_step=first_step, decoded=1, angles=1, power=1, edges=1, slopes=False
    )
    ends = []
    monkeypatch.setattr(objectives, "encode", lambda model, batch: latents)
    monkeypatch.setattr(objectives.SharpenerEndToEnd, "of_prediction", lambda self, model, end, *_: ends.append(end))
    model = Perfect(image, truth, None)
    for seed in range(20):
        sharpener.loss(model, Batch("depth", image, truth, truth, truth, seed))
    for end in ends:
        torch.testing.assert_close(end, truth, atol=1e-4, rtol=0)
    times = torch.cat([sigma for _, _, sigma in model.asked])
    assert lowest <= float((times == 1).float().mean()) <= highest
    assert first_step == 1 or times.min() < 0.3
    assert sharpener.part() == "sharpener"


def test_flows_see_every_time_and_the_single_step_the_last_only(latents):
    image, truth = latents
    for name in ("stochastic_flow", "deterministic_flow"):
        model = Perfect(image, truth, perfect_answers()[name])
        for seed in range(30):
            ALL[name].error(model, "depth", image, truth, torch.Generator().manual_seed(seed))
        times = torch.cat([timestep for _, _, timestep in model.asked])
        assert times.shape == (60,) and 0 <= times.min() < 1 and 9 < times.max() <= 10
    model = Perfect(image, truth, perfect_answers()["clean"])
    ALL["clean"].error(model, "depth", image, truth, torch.Generator())
    assert [timestep for _, _, timestep in model.asked] == [1.0]


@pytest.mark.parametrize("kind", ["stochastic_flow", "deterministic_flow"])
def test_a_flow_may_see_few_times_which_its_steps_are_a_part_of(kind, latents):
    image, truth = latents
    model = Perfect(image, truth, perfect_answers()[kind])
    flow = objective(kind, steps=2, time_steps=4)
    for seed in range(40):
        flow.error(model, "depth", image, truth, torch.Generator().manual_seed(seed))
    seen = {round(float(timestep), 4) for _, _, timesteps in model.asked for timestep in timesteps}
    assert seen == {2.5, 5.0, 7.5, 10.0}
    model.asked.clear()
    flow.predict(model, image, "depth", torch.Generator())
    assert {float(timestep) for _, _, timestep in model.asked} == {10.0, 5.0} <= seen
    with pytest.raises(ValueError, match="expected time_steps to be a multiple of steps, 3, got 4"):
        objective(kind, steps=3, time_steps=4)


def test_a_flow_of_one_time_step_is_the_residual_of_a_single_step(latents):
    image, truth = latents
    model = Perfect(image, truth, lambda model, latent, timestep: 0.3 * latent)
    flow, step = objective("deterministic_flow", steps=1, time_steps=1), ALL["residual"]
    errors = [each.error(model, "depth", image, truth, torch.Generator()) for each in (flow, step)]
    torch.testing.assert_close(errors[0], -errors[1])
    answers = [each.predict(model, image, "depth", torch.Generator()) for each in (flow, step)]
    torch.testing.assert_close(*answers)


def test_the_stochastic_flow_gives_the_image_beside_the_noise(latents):
    image, truth = latents
    model = Perfect(image, truth, perfect_answers()["stochastic_flow"])
    ALL["stochastic_flow"].predict(model, image, "depth", torch.Generator().manual_seed(0))
    assert len(model.asked) == 3
    assert all(torch.equal(latent[:, 4:], image) for latent, _, _ in model.asked)
    assert model.asked[0][0][:, :4].std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("name", ALL)
def test_every_objective_trains_a_real_network(name, network, batch):
    stages = (stage_of(ALL[name]),)
    torch.manual_seed(0)
    model = network.build(("depth", "normals"), stages, torch.device("cpu"))
    parameters = model.trainable_parameters(ALL[name].part())
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    loss = ALL[name].loss(model, batch("normals"))
    loss.backward()
    assert torch.isfinite(loss)
    reached = {key for key, parameter in parameters.items() if parameter.grad is not None and parameter.grad.any()}
    assert reached and not any(parameter.grad is not None for parameter in model.vae.encoder.parameters())
    assert any(key.startswith("vae.decoder.") for key in reached) == (name == "with_decoder")
    assert any(key.startswith("continuity.normals") for key in reached) == (name in ("continuity", *END_TO_END))
    assert not any("depth" in key for key in reached)
    latent = model.encode(batch("normals").image)
    predicted = ALL[name].predict(model, latent, "normals", torch.Generator().manual_seed(0))
    assert predicted.shape == latent.shape


def test_end_to_end_adds_what_comes_of_the_latent(network, batch):
    torch.manual_seed(0)
    model = network.build(("depth",), (stage_of(ALL["end_to_end"]),), torch.device("cpu"))
    latents = ALL["continuity"].loss(model, batch("depth")).item()
    losses = {
        weight: objective("end_to_end", prediction="clean", continuity=True, decoded=weight, angles=weight, power=1)
        .loss(model, batch("depth"))
        .item()
        for weight in (1.0, 3.0)
    }
    assert losses[3.0] - latents == pytest.approx(3 * (losses[1.0] - latents), rel=1e-4)
    assert losses[1.0] > latents


def test_without_pack_unpack_a_token_is_one_latent_pixel(network, batch):
    torch.manual_seed(0)
    one_pixel = network.model_copy(update={"patch": 1})
    model = one_pixel.build(("depth",), (stage_of(ALL["clean"]),), torch.device("cpu"))
    assert model.transformer.config.in_channels == network.latent_channels
    seen = []
    model.transformer.x_embedder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    loss = ALL["clean"].loss(model, batch("depth"))
    assert torch.isfinite(loss) and seen == [(2, 8 * 10, network.latent_channels)]


def test_pixels_that_are_not_valid_do_not_count(network, batch):
    torch.manual_seed(0)
    model = network.build(("depth",), (stage_of(ALL["clean"]),), torch.device("cpu"))
    whole = batch("depth")
    other = whole.annotation.clone()
    other[:, :, :, :8] = 1  # two latent columns
    valid = whole.valid.clone()
    valid[:, :, :, 5] = False  # one pixel column spoils the latent column it is in
    some = latent_valid(valid, model.vae_factor)
    assert some.shape == (2, 1, 8, 10) and (some == 0).nonzero()[:, 3].unique().tolist() == [1]
    model.encode_annotation = lambda image: (
        image[:, :1, ::4, ::4].expand(-1, network.latent_channels, -1, -1).contiguous()
    )
    valid[:, :, :, :8] = False
    losses = [
        ALL["clean"].loss(model, replace(whole, annotation=annotation, valid=valid))
        for annotation in (whole.annotation, other)
    ]
    assert float(losses[0]) == float(losses[1]) > 0
    assert float(ALL["clean"].loss(model, replace(whole, annotation=other))) != float(losses[0])


def stage_of(objective):
    from lotus2_ros.training.config import StageConfig

    return StageConfig(name="stage", objective=objective, steps=1, batch=2, learning_rate=1e-3)
