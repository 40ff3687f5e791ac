"""What a card can do at best: rates of products, bandwidth of copies, by the plainest means there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.timing import median_ms
from lotus2_ros.model.layers.quantization import has_quantized_matmul, quantize_rows

EIGHT_BITS = {"float8": torch.float8_e4m3fn, "int8": torch.int8}
BACKENDS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@dataclass(frozen=True)
class Ceilings:
    """FLOP/s of large square products by format (nothing for formats the device cannot multiply), bytes/s copied."""

    rates: dict[str, float]
    bandwidth: float

    def rate(self, precision: str) -> float:
        """Of the products that a model of this precision consists of."""
        return self.rates.get(precision, self.rates["bfloat16"])


def measure_ceilings(device: torch.device, size: int, copied: int, seconds: float) -> Ceilings:
    """By products of `size` squared and a copy of `copied` bytes, which counts as read and written; `seconds` each."""
    times = {name: product_ms(name, size, size, size, device, seconds) for name in formats(device)}
    rates = {name: 2e3 * size**3 / ms for name, ms in times.items() if ms is not None}
    source = torch.randint(0, 256, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Ceilings(rates, 2e3 * copied / median_ms(lambda: target.copy_(source), device, seconds))


def formats(device: torch.device) -> list[str]:
    """The formats that the device multiplies."""
    return ["bfloat16", *(name for name, dtype in EIGHT_BITS.items() if has_quantized_matmul(dtype, device))]


def product_ms(name: str, rows: int, inputs: int, outputs: int, device: torch.device, seconds: float) -> float | None:
    """Time of (rows, inputs) x (inputs, outputs) on random numbers, not rounded first; None where it does not run."""
    x, weight = (torch.randn(n, inputs, device=device, dtype=torch.bfloat16) for n in (rows, outputs))
    try:
        return median_ms(_product(name, x, weight), device, seconds)
    except RuntimeError:
        return None


def _product(name: str, x: Tensor, weight: Tensor) -> Callable[[], object]:
    if name == "bfloat16":
        return lambda: x @ weight.t()
    codes, scale = quantize_rows(x, EIGHT_BITS[name])
    weight_codes, weight_scale = quantize_rows(weight, EIGHT_BITS[name])
    if name == "int8":
        return lambda: torch._int_mm(codes, weight_codes.t())
    return lambda: torch._scaled_mm(
        codes,
        weight_codes.t(),
        scale_a=scale,
        scale_b=weight_scale.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def attention_ms(
    name: str, tokens: int, heads: int, head_size: int, device: torch.device, seconds: float
) -> float | None:
    """Time of attention among that many tokens with one of `BACKENDS`; None where it does not run."""
    query, key, value = torch.randn(3, 1, tokens, heads, head_size, device=device, dtype=torch.bfloat16).transpose(2, 3)
    try:
        with sdpa_kernel(BACKENDS[name]):
            return median_ms(lambda: F.scaled_dot_product_attention(query, key, value), device, seconds)
    except RuntimeError:
        return None


@torch.inference_mode()
def operators(device: torch.device, tokens: int, width: int, heads: int, seconds: float) -> list[tuple[object, ...]]:
    """Rows of name, then TFLOP/s by format or backend, of what most of the work is, at its true shapes."""
    shapes = {
        "3 x width (queries, keys, values)": (width, 3 * width),
        "7 x width (single block, in)": (width, 7 * width),
        "width from 5 x width (single block, out)": (5 * width, width),
        "4 x width (perceptron, in)": (width, 4 * width),
        "width from 4 x width (perceptron, out)": (4 * width, width),
    }
    rows: list[tuple[object, ...]] = []
    for name, (inputs, outputs) in shapes.items():
        times = {kind: product_ms(kind, tokens, inputs, outputs, device, seconds) for kind in formats(device)}
        rows += [(name, kind, ms, 2e-9 * tokens * inputs * outputs / ms) for kind, ms in times.items() if ms]
    for kind in BACKENDS:
        taken = attention_ms(kind, tokens, heads, width // heads, device, seconds)
        if taken is not None:
            rows.append(("attention", kind, taken, 4e-9 * tokens**2 * width / taken))
    return rows
