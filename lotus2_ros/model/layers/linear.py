"""Linear layers in several number formats.

    float32, bfloat16   the weights as they are
    float8, int8        eight-bit weights, scaled per output channel; activations are quantized per token at run time
    nf4                 four-bit weights, scaled per 64 inputs

Build a layer with `make_linear`, usually on the meta device, and load the result of `store_linear` into it with
`load_state_dict(..., assign=True)`. Quantized weights, their scales and tables keep their dtype when the model is
converted (`kept_dtypes` lists them). Biases, and the weights of float layers, have the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lotus2_ros.config.precisions import PRECISIONS
from lotus2_ros.model.layers.quantization import (
    dequantize_nf4,
    multiply_quantized,
    nf4_block,
    nf4_table,
    quantize_nf4,
    quantize_rows,
)

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EIGHT_BITS = {"float8": torch.float8_e4m3fn, "int8": torch.int8}


def make_linear(precision: str, in_features: int, out_features: int, bias: bool) -> nn.Module:
    """An uninitialized layer `y = x W^T + b` without gradients: x (..., in) float -> (..., out) of the same dtype."""
    _check_precision(precision)
    if precision in FLOATS:
        return FloatLinear(in_features, out_features, bias, FLOATS[precision])
    if precision in EIGHT_BITS:
        return EightBitLinear(in_features, out_features, bias, EIGHT_BITS[precision])
    return NF4Linear(in_features, out_features, bias)


def store_linear(precision: str, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """The state of `make_linear(precision, in, out, bias is not None)` for a weight (out, in) and bias (out,), float32.

    Raises ValueError on NaN or Inf.
    """
    _check_precision(precision)
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and not tensor.isfinite().all():
            raise ValueError(f"expected finite numbers, got NaN or Inf in the {name}")
    if precision in FLOATS:
        state = {"weight": weight.to(FLOATS[precision])}
    elif precision in EIGHT_BITS:
        codes, scale = quantize_rows(weight, EIGHT_BITS[precision])
        state = {"weight": codes, "scale": scale[:, 0]}
    else:
        codes, scale = quantize_nf4(weight)
        state = {"weight": codes, "scale": scale, "table": nf4_table().to(weight.device)}
    if bias is not None:
        state["bias"] = bias.to(FLOATS.get(precision, torch.float32))
    return state


def kept_dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    """The entries of a model's state that are loaded as stored and never converted, with their dtypes."""
    return {
        f"{path}.{name}" if path else name: tensor.dtype
        for path, module in model.named_modules()
        if isinstance(module, QuantizedLinear)
        for name, tensor in module.named_buffers(recurse=False)
    }


class FloatLinear(nn.Module):
    """weight (out, in), bias (out,), both in the model's dtype."""

    def __init__(self, in_features: int, out_features: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype), requires_grad=False) if bias else None
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        # Compiled code packs by itself, and packed products have no gradient.
        compiled = torch.compiler.is_compiling() or torch.jit.is_tracing()
        plain = compiled or x.requires_grad or x.dtype is not torch.float32
        if not plain and self._packed is not None:
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)

    def prepack(self) -> None:
        """From now on multiply by a copy of the weight in oneDNN's layout, if this is a float32 layer on the CPU.

        On AMD this is twice as fast as the kernel that torch picks. It needs the weight's memory a second time, so it
        is for small models. Moving, converting or loading the layer drops the copy. After changing the weight in
        place, call this again.
        """
        self._packed = None
        if (
            self.weight.device.type == "cpu"
            and self.weight.dtype is torch.float32
            and torch.backends.mkldnn.is_available()
            and torch.backends.mkldnn.enabled
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        ):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._packed = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # oneDNN's tensors cannot be copied or pickled.
        return {**self.__dict__, "_packed": None}


class QuantizedLinear(nn.Module):
    """A layer whose buffers keep their dtype; only the bias follows the model's dtype."""

    bias: nn.Parameter | None

    def __init__(self, out_features: int, bias: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = {id(tensor) for tensor in self.buffers(recurse=False)}

        def apply(tensor: Tensor) -> Tensor:
            # nn.Module converts floating point tensors only, so a view as bytes is moved but not converted.
            return fn(tensor.view(torch.uint8)).view(tensor.dtype) if id(tensor) in kept else fn(tensor)

        return super()._apply(apply, recurse)


class EightBitLinear(QuantizedLinear):
    """weight (out, in) float8_e4m3fn or int8, scale (out,) float32."""

    weight: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__(out_features, bias)
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=dtype))
        self.register_buffer("scale", torch.empty(out_features, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        codes, scale = quantize_rows(x.reshape(-1, x.shape[-1]), self.weight.dtype)
        result = multiply_quantized(codes, scale, self.weight, self.scale, self.bias, x.dtype)
        return result.view(*x.shape[:-1], self.weight.shape[0])


class NF4Linear(QuantizedLinear):
    """weight (out, ceil(in / 2)) uint8, scale (out, in / block) bfloat16, table (256, 2): the two values of a byte.

    The table (2 KB) is stored with each layer, because a layer that is built on the meta device cannot compute it.
    """

    weight: Tensor
    scale: Tensor
    table: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__(out_features, bias)
        blocks = in_features // nf4_block(in_features)
        self.in_features = in_features
        self.register_buffer("weight", torch.empty(out_features, (in_features + 1) // 2, dtype=torch.uint8))
        self.register_buffer("scale", torch.empty(out_features, blocks, dtype=torch.bfloat16))
        self.register_buffer("table", torch.empty(256, 2, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        weight = dequantize_nf4(self.weight, self.scale, self.table, self.in_features, x.dtype)
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")
