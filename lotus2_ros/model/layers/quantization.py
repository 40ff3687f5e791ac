"""Quantization of weights and activations to eight or four bits, and products of quantized matrices.

float8 (e4m3) and int8 scale each row (an output channel of a weight, or a token) by its largest value. nf4 rounds
weights to 16 quantiles of a normal distribution (QLoRA, arXiv 2305.14314), in blocks along the input.
"""

from __future__ import annotations

import functools
import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.model.layers.precision import cpu_has, dtype_name

log = logging.getLogger(__name__)

LARGEST = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
# For a row of zeros, for which any positive scale will do.
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
# Without one of these a CPU's int8 products take 27 times as long as float32 ones.
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")

NF4_BLOCK = 64
# QLoRA, appendix E.
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def quantize_rows(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """values (M, K) -> codes (M, K) in float8_e4m3fn or int8, scale (M, 1) float32; values ≈ codes * scale."""
    scale = (values.abs().amax(-1, keepdim=True).float() / LARGEST[dtype]).clamp_min(SMALLEST_SCALE)
    scaled = values / scale
    return (scaled.round() if dtype is torch.int8 else scaled).to(dtype), scale


def multiply_quantized(
    codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`(codes * scale) @ (weight * weight_scale)^T + bias`: (M, K), (M, 1), (N, K), (N,), (N,) -> (M, N) in `dtype`.

    Uses the device's eight-bit matrix units if there are any, else floating point on the same quantized values.
    """
    rows, columns = weight.shape
    multiple = 16 if weight.dtype is torch.float8_e4m3fn else 8
    # The CPU takes any size.
    fits = weight.device.type == "cpu" or (rows % multiple == 0 and columns % multiple == 0)
    if not (fits and has_quantized_matmul(weight.dtype, weight.device)):
        # Both formats are exact in bfloat16; sums of their products overflow float16.
        exact = torch.float32 if dtype is torch.float32 else torch.bfloat16
        product = F.linear(codes.to(exact), weight.to(exact))
    elif weight.dtype is torch.float8_e4m3fn:
        return _float8_product(codes, scale, weight, weight_scale, bias).to(dtype)
    else:
        product = _int8_product(codes, weight)
    # In place, because allocating memory costs more than the arithmetic.
    result = (product * scale).mul_(weight_scale)
    return (result if bias is None else result.add_(bias)).to(dtype)


def has_quantized_matmul(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether torch multiplies codes of this dtype on this device. `compile_model` says that it is constant."""
    return device.type != "meta" and _has_product(dtype, device)


@functools.cache
def _has_product(dtype: torch.dtype, device: torch.device) -> bool:
    """`_try_product`, tried and logged once."""
    works = _try_product(dtype, device)
    if not works:
        log.warning(
            "%s has no fast %s products here: weights are dequantized, which is slower", device, dtype_name(dtype)
        )
    return works


def _try_product(dtype: torch.dtype, device: torch.device) -> bool:
    """Try it: support differs between GPUs and torch versions."""
    if device.type == "cpu" and (dtype is torch.float8_e4m3fn or not cpu_has(*VNNI)):
        return False
    size, largest = 32, LARGEST[dtype]
    codes = torch.full((size, size), largest, device=device).to(dtype)
    ones = torch.ones(size, 1, device=device)
    try:
        if dtype is torch.int8:
            product = _int8_product(codes, codes)
        else:
            product = _float8_product(codes, ones / largest, codes, ones[:, 0] / largest, None)
            largest = 1.0
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return bool((product == size * largest**2).all())


def _float8_product(codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """-> (M, N) bfloat16, the only output dtype that all kernels with row-wise scales support."""
    return torch._scaled_mm(
        codes,
        weight.t(),
        scale_a=scale,
        scale_b=weight_scale.unsqueeze(0),
        bias=None if bias is None else bias.to(torch.bfloat16),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def _int8_product(codes: Tensor, weight: Tensor) -> Tensor:
    """-> (M, N) int32."""
    rows = codes.shape[0]
    if codes.is_cuda and rows <= 16:  # cuBLAS needs more than 16 rows
        codes = F.pad(codes, (0, 0, 0, 17 - rows))
    return torch._int_mm(codes, weight.t()).narrow(0, 0, rows)


def nf4_block(columns: int) -> int:
    """The number of inputs that share a scale."""
    return math.gcd(NF4_BLOCK, columns)


def nf4_table() -> Tensor:
    """(256, 2) float32: the two values of each byte, first that of its upper half."""
    levels = torch.tensor(NF4_LEVELS, device="cpu")
    return torch.cartesian_prod(levels, levels)


def quantize_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (N, K) -> codes (N, ceil(K / 2)) uint8, two in a byte, and scale (N, K / block) bfloat16."""
    rows, columns = weight.shape
    blocks = weight.float().reshape(rows, -1, nf4_block(columns))
    scale = blocks.abs().amax(-1).to(torch.bfloat16)
    # The nearest level for the scale as it is stored, in bfloat16.
    levels = torch.tensor(NF4_LEVELS, device=weight.device)
    middles = (levels[1:] + levels[:-1]) / 2
    scaled = blocks / scale.float().clamp_min(SMALLEST_SCALE)[..., None]
    codes = torch.bucketize(scaled, middles, out_int32=True).reshape(rows, columns).to(torch.uint8)
    codes = F.pad(codes, (0, columns % 2))
    return codes[:, ::2] << 4 | codes[:, 1::2], scale


def dequantize_nf4(codes: Tensor, scale: Tensor, table: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """-> weight (N, columns) in `dtype`."""
    values = F.embedding(codes.int(), table.to(dtype)).flatten(1)[:, :columns]
    blocks = values.reshape(*scale.shape, -1) * scale.to(dtype)[..., None]
    return blocks.flatten(1)
