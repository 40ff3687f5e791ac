"""Training of the uncertainty head: it learns how large the errors are, and the model stays as it is."""

from types import SimpleNamespace

import pytest
import torch

from lotus2_ros.training.decoded import disparity_error
from lotus2_ros.training.objectives import Uncertainty

OBJECTIVE = Uncertainty(kind="uncertainty")
WIDTH = 160


@pytest.fixture
def model(network):
    torch.manual_seed(0)
    stage = SimpleNamespace(objective=OBJECTIVE, single_blocks=None)
    return network.build(("depth", "normals"), [stage], torch.device("cpu"))


def test_only_the_head_is_trained_and_it_learns(model, batch):
    parameters = model.trainable_parameters("uncertainty")
    assert parameters and all(name.startswith("uncertainty.") for name in parameters)
    assert not any("uncertainty" in name for part in ("core", "vae", "sharpener") for name in
                   model.trainable_parameters(part))  # fmt: skip
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(parameters.values(), 1e-2)
    losses = []
    for _ in range(40):
        loss = OBJECTIVE.loss(model, batch("depth"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == parameters.keys()


def test_the_loss_is_smallest_at_the_size_of_the_errors(model, batch, monkeypatch):
    error = torch.full((2, 1, 32, 40), 0.2)
    monkeypatch.setattr("lotus2_ros.training.objectives.disparity_error", lambda *given: error)
    losses = {}
    for scale in (0.1, 0.2, 0.4):
        monkeypatch.setattr(model.uncertainty, "forward", lambda latent, scale=scale: torch.full(
            (len(latent), 1, *latent.shape[2:]), scale).log())  # fmt: skip
        losses[scale] = float(OBJECTIVE.loss(model, batch("depth")))
    assert losses[0.2] == pytest.approx(1 + torch.tensor(0.2).log().item())
    assert losses[0.2] < min(losses[0.1], losses[0.4])


def test_errors_are_in_units_of_the_answer_and_not_of_its_scale_and_shift(generator):
    answer = torch.rand(2, 1, 8, 10, generator=generator)
    known = torch.ones_like(answer)
    assert float(disparity_error(answer, 0.5 * answer + 0.2, known).max()) < 2e-3
    far_off = answer.clone()
    far_off[:, :, 2, 3] += 0.3
    for scale in (0.5, 2.0):
        error = disparity_error(far_off, scale * answer, known)
        assert error[:, 0, 2, 3].tolist() == pytest.approx([0.3, 0.3], abs=0.03)
    known[:, :, 2, 3] = 0  # does not move the line
    assert float((disparity_error(far_off, answer, known) * known).max()) < 2e-3


def test_unknown_pixels_do_not_count(model, batch):
    given = batch("depth")
    known = given.valid.clone()
    known[:, :, :, :20] = False
    other = given.annotation.clone()
    other[:, :, :, :20] = 1.0
    first, second = (
        SimpleNamespace(**{**vars(given), "valid": known, "annotation": annotation})
        for annotation in (given.annotation, other)
    )
    assert OBJECTIVE.loss(model, first) == OBJECTIVE.loss(model, second)
    assert OBJECTIVE.loss(model, first) != OBJECTIVE.loss(model, given)
