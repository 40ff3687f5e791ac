from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F

from lotus2_ros.training import optimizer as optimizer_module
from lotus2_ros.training.checkpoint import resume, save
from lotus2_ros.training.config import read_config
from lotus2_ros.training.optimizer import Muon, optimizers_for, orthogonalize

RUNS = Path(__file__).parents[2] / "config/train"


@pytest.fixture
def kernel(generator):
    return torch.randn(8, 3, 3, 3, generator=generator).requires_grad_()


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (24, 2, 1, 2)], ids=["wide", "tall"])
def test_a_kernels_step_is_that_of_torchs_muon_on_its_matrix(shape, generator, monkeypatch):
    monkeypatch.setattr(optimizer_module, "multiplies_bfloat16", lambda device: True)  # as torch's on any CPU
    kernel = torch.randn(shape, generator=generator).requires_grad_()
    matrix = kernel.detach().flatten(1).clone().requires_grad_()
    theirs = torch.optim.Muon([matrix], 1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    ours = Muon([kernel], 1e-2, 0.1)
    image = torch.randn(2, shape[1], 6, 7, generator=generator)
    for _ in range(3):
        for optimizer, weight in ((ours, kernel), (theirs, matrix)):
            optimizer.zero_grad()
            F.conv2d(image, weight.view(shape)).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


@pytest.mark.parametrize("in_bfloat16", [False, True])
@given(shape=st.tuples(st.integers(2, 40), st.integers(2, 40)), seed=st.integers(0, 2**31))
def test_what_is_made_orthogonal_keeps_its_singular_vectors(in_bfloat16, shape, seed):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assume(values[-1] > 0.02 * matrix.norm())  # below that five steps do not come to one
    for each in (matrix, 1e3 * matrix):  # whatever its size
        with mock.patch.object(optimizer_module, "multiplies_bfloat16", return_value=in_bfloat16):
            found = left.T @ orthogonalize(each).float() @ right.T
        singular = found.diagonal()
        assert singular.min() > 0.5 and singular.max() < 1.5
        torch.testing.assert_close(found, torch.diag(singular), atol=0.1, rtol=0)


def test_what_has_no_gradient_stays(kernel):
    other = torch.ones(4, 2, 1, 1, requires_grad=True)
    optimizer = Muon([kernel, other], 1e-2, 0.1)
    kernel.sum().backward()
    before = kernel.detach().clone()
    optimizer.step()
    assert not torch.equal(kernel, before) and torch.equal(other, torch.ones_like(other))


def test_a_resumed_one_goes_on_as_if_it_had_not_stopped(kernel, generator, tmp_path):
    image = torch.randn(2, 3, 6, 7, generator=generator)

    def step(weight, optimizer):
        optimizer.zero_grad()
        F.conv2d(image, weight).square().mean().backward()
        optimizer.step()

    optimizer = Muon([kernel], 1e-2, 0.1)
    for _ in range(2):
        step(kernel, optimizer)
    save(tmp_path / "core.safetensors", 2, {"kernel": kernel}, [optimizer])
    other = torch.zeros_like(kernel, requires_grad=True)
    resumed = Muon([other], 1e-2, 0.1)
    assert resume(tmp_path / "core.safetensors", {"kernel": other}, [resumed]) == 2
    assert torch.equal(other, kernel)
    step(kernel, optimizer)
    step(other, resumed)
    assert torch.equal(other, kernel)


@pytest.mark.parametrize("run", ["bundled.yaml", "lotus_d.yaml"])
def test_muon_takes_the_blocks_and_leaves_the_rest_and_the_decoder(run):
    config = read_config(RUNS / run, ["network.prior.pretrained=false"])
    stage = next(stage for stage in config.stages if stage.name == "core")
    model = config.network.build(config.tasks, config.stages, torch.device("cpu"))
    parameters = model.trainable_parameters("core_and_decoder")
    rest, muon = optimizers_for(parameters, stage)
    taken = {id(parameter) for parameter in muon.param_groups[0]["params"]}
    names = {name for name, parameter in parameters.items() if id(parameter) in taken}
    assert len(rest.param_groups[0]["params"]) == len(parameters) - len(names)
    assert names and all(parameters[name].ndim >= 2 for name in names)
    kinds = ("vae.", ".norm", "time_", "class_embedding", "conv_in", "conv_out", "embedder", "continuity")
    assert not [name for name in names if any(kind in name for kind in kinds)]
    left = [name for name, parameter in parameters.items() if parameter.ndim >= 2 and name not in names]
    blocks = [name for name in left if "blocks" in name and not name.startswith("vae.")]
    assert all(".norm" in name or "time_emb_proj" in name for name in blocks)
    assert any(parameters[name].ndim == 4 for name in names) == (config.network.source == "unet")
