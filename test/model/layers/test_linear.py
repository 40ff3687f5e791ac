from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lotus2_ros.model.layers.linear import PRECISIONS, FloatLinear, kept_dtypes, make_linear, store_linear
from lotus2_ros.model.layers.quantization import NF4_LEVELS, has_quantized_matmul

QUANTISED = ("float8", "int8", "nf4")
# Of y, for normal weights and activations; what is measured at 3072 x 3072, and a little room.
RELATIVE_ERROR = {"float32": 1e-6, "bfloat16": 0.004, "float8": 0.04, "int8": 0.015, "nf4": 0.1}
CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(precision: str, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """As a checkpoint is loaded: built without memory, then given its tensors."""
    with torch.device("meta"):
        layer = make_linear(precision, weight.shape[1], weight.shape[0], bias is not None)
    layer.load_state_dict(store_linear(precision, weight, bias), strict=True, assign=True)
    return layer


def relative(value: Tensor, expected: Tensor) -> float:
    return float((value.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sizes", [(128, 32), (7, 3), (1, 1)])
def test_what_is_stored_is_what_a_layer_holds(precision: str, sizes: tuple[int, int], bias: bool) -> None:
    with torch.device("meta"):
        layer = make_linear(precision, *sizes, bias)
    stored = store_linear(precision, normal(*sizes[::-1]), normal(sizes[1]) if bias else None)
    assert {name: (entry.shape, entry.dtype) for name, entry in layer.state_dict().items()} == {
        name: (entry.shape, entry.dtype) for name, entry in stored.items()
    }
    assert all(entry.is_contiguous() for entry in stored.values())
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_error_of_a_product(precision: str, dtype: torch.dtype) -> None:
    weight, bias, x = normal(96, 256) / 16, normal(96, seed=1), normal(2, 40, 256, seed=2)
    layer = build(precision, weight, bias).to(dtype)
    y = layer(x.to(dtype))
    assert y.dtype == dtype and y.shape == (2, 40, 96)
    rounding = 0 if dtype is torch.float32 and precision != "bfloat16" else 0.004
    assert relative(y, F.linear(x, weight, bias)) < RELATIVE_ERROR[precision] + rounding


@pytest.mark.parametrize("precision", QUANTISED)
def test_float16_does_not_overflow_on_the_way(precision: str) -> None:
    weight, x = torch.ones(8, 512), torch.full((1, 512), 100.0)
    y = build(precision, weight).half()(x.half())
    assert torch.allclose(y.float(), torch.full((1, 8), 51200.0), rtol=0.01)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(PRECISIONS), st.integers(1, 70), st.integers(1, 9), st.lists(st.integers(0, 3), max_size=2))
def test_any_shape(precision: str, inputs: int, outputs: int, leading: list[int]) -> None:
    weight, bias, x = normal(outputs, inputs), normal(outputs, seed=1), normal(*leading, inputs, seed=2)
    y = build(precision, weight, bias).float()(x)
    assert y.shape == (*leading, outputs)
    # Of what could come out at most: the error of a single output has no other bound.
    room = x.norm(dim=-1, keepdim=True) * weight.norm(dim=-1) + bias.abs()
    assert ((y - F.linear(x, weight, bias)).abs() <= 1e-5 + 2 * RELATIVE_ERROR[precision] * room).all()


@pytest.mark.parametrize("precision", QUANTISED)
def test_weights_that_a_format_holds_come_back_exactly(precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    if precision == "int8":
        weight = torch.randint(-127, 128, (16, 128), generator=generator).float()
        weight[:, 0] = 127
    elif precision == "float8":
        weight = torch.randn(16, 128, generator=generator).to(torch.float8_e4m3fn).float()
        weight[:, 0] = 448
    else:
        weight = torch.tensor(NF4_LEVELS)[torch.randint(0, 16, (16, 128), generator=generator)]
        weight[:, ::64] = -1
    x = torch.eye(128)  # each token a single one: exact in every format
    assert torch.allclose(build(precision, weight * 0.25)(x), weight.T * 0.25, rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_zeros_give_zeros(precision: str) -> None:
    weight, x = normal(6, 64), normal(5, 64, seed=1)
    weight[2], x[3] = 0, 0
    y = build(precision, weight)(x.to(torch.bfloat16 if precision == "bfloat16" else torch.float32))
    assert y.isfinite().all()
    assert y[:, 2].count_nonzero() == 0 and y[3].count_nonzero() == 0 and y[0, 0] != 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_not_finite_is_refused(precision: str, bad: float) -> None:
    weight, bias = normal(4, 8), normal(4)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match="expected finite numbers, got NaN or Inf in the weight"):
        store_linear(precision, weight, bias)
    with pytest.raises(ValueError, match="expected finite numbers, got NaN or Inf in the bias"):
        store_linear(precision, normal(4, 8), torch.full((4,), bad))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_activations_that_are_not_finite_stay_visible(precision: str) -> None:
    x = normal(3, 64)
    x[1, 5] = math.nan
    y = build(precision, normal(4, 64)).float()(x)
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


def test_an_unknown_precision_is_refused() -> None:
    for refused in (lambda: make_linear("int4", 2, 2, True), lambda: store_linear("int4", normal(2, 2), None)):
        with pytest.raises(ValueError, match=r"expected a precision of float32, .*, nf4, got 'int4'"):
            refused()


@pytest.mark.parametrize("precision", QUANTISED)
def test_conversion_leaves_what_is_quantized(precision: str) -> None:
    layer = build(precision, normal(8, 128), normal(8))
    before = {name: entry.clone() for name, entry in layer.state_dict().items()}
    for convert in (nn.Module.half, lambda module: module.to(CPU, torch.bfloat16), nn.Module.double, nn.Module.float):
        convert(layer)
        for name, entry in layer.state_dict().items():
            if name != "bias":
                assert entry.dtype == before[name].dtype
                assert torch.equal(entry.view(torch.uint8), before[name].view(torch.uint8))
    assert layer.bfloat16().bias.dtype == torch.bfloat16
    assert layer.to_empty(device="meta").weight.is_meta


def test_kept_dtypes_names_what_is_not_converted() -> None:
    model = nn.Sequential(*(make_linear(precision, 64, 8, True) for precision in PRECISIONS))
    assert kept_dtypes(model) == {
        "2.weight": torch.float8_e4m3fn,
        "2.scale": torch.float32,
        "3.weight": torch.int8,
        "3.scale": torch.float32,
        "4.weight": torch.uint8,
        "4.scale": torch.bfloat16,
        "4.table": torch.float32,
    }
    assert kept_dtypes(model[3]) == {"weight": torch.int8, "scale": torch.float32}


@pytest.mark.parametrize(("precision", "bits"), [("bfloat16", 16), ("float8", 8.05), ("int8", 8.05), ("nf4", 4.3)])
def test_bits_per_weight(precision: str, bits: float) -> None:
    stored = store_linear(precision, normal(1024, 1024), None)
    assert sum(entry.numel() * entry.element_size() for entry in stored.values()) * 8 / 1024**2 <= bits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("rows", [1, 16, 17, 302])
@pytest.mark.parametrize("sizes", [(128, 64), (20, 3)])
@pytest.mark.parametrize("precision", QUANTISED)
def test_a_gpu_gives_what_the_cpu_gives(precision: str, sizes: tuple[int, int], rows: int) -> None:
    inputs, outputs = sizes
    layer, x = build(precision, normal(outputs, inputs), normal(outputs)), normal(rows, inputs, seed=1)
    expected = layer(x)
    assert relative(layer.to("cuda")(x.cuda()).cpu(), expected) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_compiled_equals_eager(precision: str) -> None:
    layer, x = build(precision, normal(24, 64), normal(24)).float(), normal(2, 5, 64, seed=1)
    if isinstance(layer, FloatLinear):
        layer.prepack()
    torch.compiler.assume_constant_result(has_quantized_matmul)  # as compile_model does
    compiled = torch.compile(layer, fullgraph=True)
    with torch.inference_mode():
        assert torch.allclose(compiled(x), layer(x), rtol=1e-5, atol=1e-5)
