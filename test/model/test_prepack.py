"""Layers whose weights oneDNN keeps in its own order."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.model.linear import FloatLinear, make_linear, store_linear


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(weight: Tensor, bias: Tensor | None = None) -> FloatLinear:
    layer = make_linear("float32", weight.shape[1], weight.shape[0], bias is not None)
    layer.load_state_dict(store_linear("float32", weight, bias), strict=True)
    assert isinstance(layer, FloatLinear)
    return layer


@pytest.fixture
def layer() -> FloatLinear:
    layer = build(normal(24, 40), normal(24))
    layer.prepack()
    if layer._packed is None:
        pytest.skip("this torch has no oneDNN linear layer")
    return layer


@pytest.mark.parametrize("shape", [(40,), (1, 40), (3, 7, 40), (0, 40), (2, 0, 40)])
def test_equals_the_plain_product(layer: FloatLinear, shape: tuple[int, ...]) -> None:
    x = normal(*shape, seed=1)
    assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 on this CPU")
@pytest.mark.parametrize("shape", [(40,), (3, 7, 40), (2, 0, 40)])
def test_products_in_bfloat16_round_the_factors_and_give_float32(layer: FloatLinear, shape: tuple[int, ...]) -> None:
    layer.prepack(torch.bfloat16)
    x = normal(*shape, seed=1)
    expected = F.linear(x.bfloat16().float(), layer.weight.bfloat16().float(), layer.bias)
    result = layer(x)
    assert result.dtype == torch.float32 and layer.weight.dtype == torch.float32
    assert torch.allclose(result, expected, rtol=2**-8, atol=1e-5)  # the result is rounded too
    assert not len(result.flatten()) or not torch.equal(result, F.linear(x, layer.weight, layer.bias))


def test_of_views(layer: FloatLinear) -> None:
    for x in (normal(40, 9).T, normal(4, 6, 80)[:, ::2, ::2]):
        assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


def test_without_bias() -> None:
    layer, x = build(normal(24, 40)), normal(3, 40, seed=1)
    layer.prepack()
    assert torch.allclose(layer(x), F.linear(x, layer.weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("assign", [True, False])
def test_loading_forgets_the_old_weight(layer: FloatLinear, assign: bool) -> None:
    weight, bias, x = normal(24, 40, seed=3), normal(24, seed=4), normal(5, 40, seed=5)
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=assign)
    expected = F.linear(x, weight, bias)
    assert torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    layer.prepack()
    assert torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_conversion_and_back(layer: FloatLinear) -> None:
    x = normal(5, 40, seed=1)
    layer.bfloat16()
    layer.prepack()  # nothing to pack in bfloat16
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    layer.float().prepack()
    assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


def test_conversion_forgets_the_old_weight(layer: FloatLinear) -> None:
    x = normal(5, 40, seed=1)
    layer.bfloat16().float()
    assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


def test_the_state_is_that_of_the_plain_layer(layer: FloatLinear) -> None:
    x = normal(5, 40, seed=1)
    assert layer.state_dict().keys() == {"weight", "bias"}
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for same in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.allclose(same(x), layer(x), rtol=1e-5, atol=1e-5)


def test_gradients_still_flow(layer: FloatLinear) -> None:
    x = normal(5, 40, seed=1).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(5, -1), atol=1e-5)
