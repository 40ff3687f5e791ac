"""Whether a device computes what it should: its products against float32 ones of the same numbers on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lotus2_ros.model.layers.linear import make_linear, store_linear

# Results are rounded to bfloat16, and quantized activations may round to a neighbor.
BOUND = 0.02
TOKENS, INPUTS, OUTPUTS = 300, 1024, 768


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Norm of the difference over that of what was expected; NaN where either is."""
    result, expected = result.double(), expected.double()
    return float((result - expected).norm() / expected.norm())


@torch.inference_mode()
def check_products(precision: str, device: torch.device) -> float:
    """Relative error of a linear layer on the device, in bfloat16, against the same layer on the CPU in float32."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(OUTPUTS, INPUTS, generator=generator) / INPUTS**0.5
    state = store_linear(precision, weight, torch.randn(OUTPUTS, generator=generator))
    x = torch.randn(TOKENS, INPUTS, generator=generator).bfloat16()
    results = []
    for place, dtype in ((device, torch.bfloat16), (torch.device("cpu"), torch.float32)):
        layer = make_linear(precision, INPUTS, OUTPUTS, bias=True)
        layer.load_state_dict(state)
        results.append(layer.to(place, dtype)(x.to(place, dtype)).cpu())
    return relative_error(*results)


def wrong_products(device: torch.device, note: Callable[[str], None]) -> list[str]:
    """What is wrong with a device's own products, in every precision; their errors are noted."""
    wrong = []
    for precision in ("bfloat16", "float8", "int8", "nf4"):
        error = check_products(precision, device)
        note(f"{precision} products against float32, relative: {error:.1e}")
        if not error <= BOUND:
            wrong.append(f"{precision}: products are off by {error:.2g}")
    return wrong
