"""Layers whose weights oneDNN keeps in its own order."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.model.layers.linear import FloatLinear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def build(bias: bool, generator: torch.Generator) -> FloatLinear:
    layer = FloatLinear(40, 24, bias, torch.float32)
    layer.load_state_dict(
        {name: torch.randn(entry.shape, generator=generator) for name, entry in layer.state_dict().items()}
    )
    layer.prepack()
    assert layer._packed is not None
    return layer


@pytest.fixture
def layer(generator) -> FloatLinear:
    return build(True, generator)


def assert_plain(layer: FloatLinear, x: Tensor) -> None:
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(40,), (1, 40), (3, 7, 40), (0, 40), (2, 0, 40)])
def test_equals_the_plain_product(layer, shape, generator):
    assert_plain(layer, torch.randn(shape, generator=generator))


def test_of_views(layer, generator):
    assert_plain(layer, torch.randn(40, 9, generator=generator).T)
    assert_plain(layer, torch.randn(4, 6, 80, generator=generator)[:, ::2, ::2])


def test_without_bias(generator):
    assert_plain(build(False, generator), torch.randn(3, 40, generator=generator))


@pytest.mark.parametrize("assign", [True, False])
def test_loading_forgets_the_old_weight(layer, assign, generator):
    weight, bias = torch.randn(24, 40, generator=generator), torch.randn(24, generator=generator)
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=assign)
    x = torch.randn(5, 40, generator=generator)
    for _ in range(2):
        torch.testing.assert_close(layer(x), F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)
        layer.prepack()


def test_conversion_and_back(layer, generator):
    x = torch.randn(5, 40, generator=generator)
    layer.bfloat16()
    layer.prepack()  # nothing to pack in bfloat16
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    layer.float().prepack()
    assert_plain(layer, x)


def test_conversion_forgets_the_old_weight(layer, generator):
    layer.bfloat16().float()
    assert_plain(layer, torch.randn(5, 40, generator=generator))


def test_the_state_is_that_of_the_plain_layer(layer, generator):
    assert layer.state_dict().keys() == {"weight", "bias"}
    x = torch.randn(5, 40, generator=generator)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


def test_gradients_still_flow(layer, generator):
    x = torch.randn(5, 40, generator=generator).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(5, -1), atol=1e-5)
