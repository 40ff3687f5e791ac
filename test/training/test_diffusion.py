"""The diffusion that Lotus starts from: its time-steps and noise, both predictions, DDIM, and a run on a U-Net."""

import pytest
import torch
from diffusers import DDIMScheduler
from pydantic import ValidationError

from lotus2_ros.model.lotus.lotus import ANNOTATION, RECONSTRUCTION
from lotus2_ros.training import diffusion
from lotus2_ros.training.diffusion import STEPS, Diffusion, scales, subsequence

PREDICTIONS = {"noise": "epsilon", "clean": "sample"}  # ours, and diffusers' name


def objective(prediction, time_steps=1000, steps=10, reconstruction=False):
    return Diffusion(
        kind="diffusion", prediction=prediction, time_steps=time_steps, steps=steps, reconstruction=reconstruction
    )


class Known:
    """Stands for a network that knows the one annotation; `answer` gives its output from z_t and the two scales."""

    vae_factor = 4

    def __init__(self, image, truth, answer):
        self.image, self.truth, self.answer, self.asked = image, truth, answer, []

    def without_features(self, latent):
        return latent[:, :4]

    def transform(self, given, task, switch, timestep):
        noisy = given[:, self.image.shape[1] :]
        self.asked.append((switch, torch.as_tensor(timestep).flatten()))
        signal, spread = (each.reshape(-1, 1, 1, 1) for each in scales(torch.as_tensor(timestep)))
        return self.image[:, :4] if switch == RECONSTRUCTION else self.answer(self, noisy, signal, spread)


def right_noise(model, noisy, signal, spread):
    return (noisy - signal * model.truth) / spread


RIGHT = {"noise": right_noise, "clean": lambda model, *_: model.truth}


@pytest.fixture
def latents(generator, monkeypatch):
    """Of two images with three channels of features behind them, and of their annotations."""
    found = torch.randn(2, 4 + 3, 6, 8, generator=generator), torch.randn(2, 4, 6, 8, generator=generator)
    monkeypatch.setattr(diffusion, "encode", lambda model, batch: found)
    return found


def loss(objective, model, batch, seed=0):
    given = batch("depth")
    valid = torch.ones(2, 1, 24, 32, dtype=torch.bool)
    return objective.loss(model, type(given)("depth", given.image, given.annotation, valid, given.shift, seed))


@pytest.mark.parametrize(("count", "expected"), [(1, [999]), (2, [499, 999]), (5, [199, 399, 599, 799, 999])])
def test_a_sub_sequence_is_even_and_ends_with_the_last_time_step(count, expected):
    assert subsequence(count).tolist() == expected
    assert subsequence(STEPS).tolist() == list(range(STEPS))


def test_the_noise_is_that_of_stable_diffusion():
    signal, spread = scales(torch.arange(STEPS))
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    torch.testing.assert_close(signal.square(), theirs, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(signal.square() + spread.square(), torch.ones(STEPS))
    assert float(signal[-1]) == pytest.approx(0.0683, abs=1e-4)  # the last time-step still has some of the annotation


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("time_steps", [1000, 50, 1])
def test_a_network_that_answers_the_equation_has_no_error_and_is_followed_to_the_truth(
    prediction, time_steps, latents, batch
):
    image, truth = latents
    chosen, model = objective(prediction, time_steps, min(10, time_steps)), Known(image, truth, RIGHT[prediction])
    assert float(loss(chosen, model, batch)) < 1e-6
    wrong = Known(image, truth, RIGHT["clean" if prediction == "noise" else "noise"])
    assert float(loss(chosen, wrong, batch)) > 0.5
    for estimate in chosen.estimates(model, image, "depth", torch.Generator().manual_seed(0)):
        torch.testing.assert_close(estimate, truth, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("prediction", "theirs"), PREDICTIONS.items())
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_ddim_is_that_of_diffusers(prediction, theirs, steps, latents):
    """For a network that is wrong, so that every step counts."""
    image, truth = latents

    def answer(model, noisy, signal, spread):
        return 0.3 * noisy + 0.5 * signal * model.truth

    chosen = objective(prediction, 1000, steps)
    found = chosen.predict(Known(image, truth, answer), image, "depth", torch.Generator().manual_seed(3))
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=theirs, clip_sample=False,
        set_alpha_to_one=True, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    noisy = torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    model = Known(image, truth, answer)
    for time in scheduler.timesteps:
        given = torch.cat((image, noisy), dim=1)
        noisy = scheduler.step(model.transform(given, "depth", ANNOTATION, time), time, noisy).prev_sample
    torch.testing.assert_close(found, noisy, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("time_steps", [1, 10, 1000])
def test_training_and_inference_use_the_same_time_steps(time_steps, latents, batch):
    image, truth = latents
    chosen, model = objective("clean", time_steps, min(10, time_steps)), Known(image, truth, RIGHT["clean"])
    for seed in range(60):
        loss(chosen, model, batch, seed)
    drawn = set(torch.cat([time for _, time in model.asked]).tolist())
    assert drawn <= set(subsequence(time_steps).tolist()) and len(drawn) >= min(time_steps, 50)
    model.asked.clear()
    chosen.predict(model, image, "depth", torch.Generator())
    followed = torch.cat([time for _, time in model.asked]).tolist()
    assert followed == subsequence(min(10, time_steps)).flip(0).tolist()


def test_the_detail_preserver_asks_for_the_image_again(latents, batch):
    image, truth = latents
    model = Known(image, truth, lambda model, *_: model.truth + 1)
    alone = float(loss(objective("clean", 1, 1), model, batch))
    assert alone == pytest.approx(1) and [switch for switch, _ in model.asked] == [ANNOTATION]
    assert float(loss(objective("clean", 1, 1, reconstruction=True), model, batch)) == pytest.approx(alone)
    assert [switch for switch, _ in model.asked[1:]] == [ANNOTATION, RECONSTRUCTION]
    model.image = image + 0.5  # what it gives in place of the image
    assert float(loss(objective("clean", 1, 1, reconstruction=True), model, batch)) == pytest.approx(alone + 0.25)


@pytest.mark.parametrize(("time_steps", "steps"), [(300, 10), (50, 20), (10, 50)])
def test_time_steps_that_are_no_sub_sequence_are_refused(time_steps, steps):
    with pytest.raises(ValidationError, match=f"expected time_steps that divide 1000 .*got {time_steps} and {steps}"):
        objective("clean", time_steps, steps)
