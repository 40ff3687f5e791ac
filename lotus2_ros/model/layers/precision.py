"""Names of devices and number formats."""

from __future__ import annotations

from collections.abc import Mapping

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AMPERE = (8, 0)  # compute capability of the first GPUs with bfloat16; Turing has 7.5


def dtype_named(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"expected a dtype of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The reverse of :func:`dtype_named`, of other dtypes too."""
    return str(dtype).removeprefix("torch.")


def resolve_device(device: str | torch.device) -> torch.device:
    """The device for a name; 'auto' is the GPU if there is one. Raises ValueError for a GPU that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(f"expected a device of auto, cpu or cuda, got {device!r}") from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"expected a CUDA GPU for device {device!r}, but torch {torch.__version__} sees none; use cpu or auto"
        )
    return resolved


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions. One without them is slower in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    return cpu_has("avx512_bf16", "amx_bf16")


def cpu_has(*names: str) -> bool:
    """Whether the CPU has one of these instruction sets, by torch's names for them."""
    # Since torch 2.13; for older versions assume that there are none.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in names)


def resolve_dtype(
    dtype: str | torch.dtype, device: torch.device, without_bfloat16: torch.dtype = torch.float32
) -> torch.dtype:
    """The dtype for a name; 'auto' is float32 on a CPU and bfloat16, as Lotus-2 was published, on a GPU.

    without_bfloat16: what 'auto' is on a GPU that has no bfloat16 instructions.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype != "auto":
        return dtype_named(dtype)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if multiplies_bfloat16(device) else without_bfloat16
