from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lotus2_ros.model.layers import quantization
from lotus2_ros.model.layers.linear import make_linear
from lotus2_ros.model.layers.quantization import (
    NF4_LEVELS,
    dequantize_nf4,
    has_quantized_matmul,
    multiply_quantized,
    nf4_table,
    quantize_nf4,
    quantize_rows,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.floats(-30, 30))
def test_eight_bits_round_to_the_nearest_code(columns: int, rows: int, exponent: float) -> None:
    values = normal(rows, columns) * 2**exponent
    largest = values.abs().amax(-1, keepdim=True)
    codes, scale = quantize_rows(values, torch.int8)
    assert ((codes * scale - values).abs() <= largest / 254 * 1.0001).all()
    codes, scale = quantize_rows(values, torch.float8_e4m3fn)
    # Three bits of mantissa, and below 2^-6 of the scale steps of 2^-9.
    assert ((codes.float() * scale - values).abs() <= (values.abs() / 16).maximum(scale * 2**-10) * 1.0001).all()


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 5), st.floats(-30, 30))
def test_nf4_rounds_to_the_nearest_level(columns: int, rows: int, exponent: float) -> None:
    weight = normal(rows, columns) * 2**exponent
    codes, scale = quantize_nf4(weight)
    rounded = dequantize_nf4(codes, scale, nf4_table(), columns, torch.float32)
    blocks = weight.view(*scale.shape, -1)
    nearest = (blocks[..., None] - torch.tensor(NF4_LEVELS) * scale.float()[..., None, None]).abs().amin(-1)
    error = (rounded.view_as(blocks) - blocks).abs()
    assert torch.allclose(error, nearest, rtol=1e-3, atol=float(blocks.abs().max()) * 1e-6)


def test_nf4_levels_are_quantiles_of_a_normal_distribution() -> None:
    # QLoRA, equation 4 and appendix E: eight above zero, seven below, zero itself; the outermost at the middle of the
    # first of 15 and of 16 equal shares.
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    above = torch.special.ndtri(torch.linspace(outermost, 0.5, 9, dtype=torch.float64)[:-1])
    below = -torch.special.ndtri(torch.linspace(outermost, 0.5, 8, dtype=torch.float64)[:-1])
    levels = torch.cat((below, torch.zeros(1, dtype=torch.float64), above.flip(0))) / above.max()
    assert torch.allclose(torch.tensor(NF4_LEVELS, dtype=torch.float64), levels, atol=2e-7)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_the_processors_own_product_equals_that_of_the_rounded_values(dtype: torch.dtype) -> None:
    codes, scale = quantize_rows(normal(19, 40), dtype)
    weight, weight_scale = quantize_rows(normal(24, 40, seed=1), dtype)
    bias = normal(24, seed=2)
    expected = F.linear(codes.float() * scale, weight.float() * weight_scale, bias)
    y = multiply_quantized(codes, scale, weight, weight_scale[:, 0], bias, torch.float32)
    assert torch.allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_without_a_product_of_its_own_int8_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_quantized_matmul(torch.int8, torch.device("cpu")):
        pytest.skip("this processor has no exact int8 product")
    codes, scale = quantize_rows(normal(19, 40), torch.int8)
    weight, weight_scale = quantize_rows(normal(24, 40, seed=1), torch.int8)
    operands = codes, scale, weight, weight_scale[:, 0], normal(24, seed=2)
    expected = multiply_quantized(*operands, torch.float32)
    monkeypatch.setattr("lotus2_ros.model.layers.quantization.has_quantized_matmul", lambda *_: False)
    assert torch.allclose(multiply_quantized(*operands, torch.float32), expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(multiply_quantized(*operands, torch.bfloat16).float(), expected, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(3072, 9216), (64, 3072), (24, 8), (20, 3)])
@pytest.mark.parametrize("precision", ["float8", "int8"])
def test_a_gpus_products_get_the_shapes_they_take(
    monkeypatch: pytest.MonkeyPatch, precision: str, sizes: tuple[int, int], dtype: torch.dtype
) -> None:
    # No GPU and no numbers: torch's own checks of shapes, strides and dtypes.
    monkeypatch.setattr("lotus2_ros.model.layers.quantization.has_quantized_matmul", lambda *_: True)
    with FakeTensorMode(), torch.device("cuda"):
        layer = make_linear(precision, *sizes, bias=True)
        for rows in (0, 1, 16, 302):
            y = layer(torch.empty(2, rows, sizes[0], dtype=dtype))
            assert y.shape == (2, rows, sizes[1]) and y.dtype == dtype


def test_a_cpu_without_vnni_multiplies_int8_weights_in_float(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_vnni": False}, raising=False)
    quantization._has_product.cache_clear()
    assert not has_quantized_matmul(torch.int8, torch.device("cpu"))
    quantization._has_product.cache_clear()
    expected = "cpu has no fast int8 products here: weights are dequantized, which is slower"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_what_a_device_cannot_multiply_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    quantization._has_product.cache_clear()
    for _ in range(2):
        assert not has_quantized_matmul(torch.float8_e4m3fn, torch.device("cpu"))
    assert not has_quantized_matmul(torch.int8, torch.device("meta"))
    expected = "cpu has no fast float8_e4m3fn products here: weights are dequantized, which is slower"
    assert [record.getMessage() for record in caplog.records] == [expected]
