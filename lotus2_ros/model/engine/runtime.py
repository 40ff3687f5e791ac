"""Making a loaded model fast on the device it is on: memory formats, kernels, compilation, CUDA graphs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lotus2_ros.model.engine.device import keep_freed_memory
from lotus2_ros.model.engine.flops import count_frame
from lotus2_ros.model.engine.graphs import CudaRecorder, Graphs, first_line
from lotus2_ros.model.interface import InferenceModel
from lotus2_ros.model.layers.linear import FloatLinear, make_linear, store_linear

log = logging.getLogger(__name__)

Launch = Callable[..., Tensor]

# Fastest first on current cards; each is passed over where the card, the dtype or the shapes do not suit it.
ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
# Variants of one block's compiled code: resolutions, sets of adapters, batch sizes. By default torch gives up at 8.
VARIANTS = 256
# Packed weights are held beside the others: for small models, not for one that just fits into the memory.
PACKED_BYTES = 1 << 30

RESOLUTIONS = (384, 512, 640, 768, 1024)
ASPECT = 4 / 3
FRAME_TIME = 1 / 15  # seconds that a frame of the chosen resolution may take
EFFICIENCY = 0.7  # of the measured rate of products, that a whole frame reaches


def optimize(model: InferenceModel, *, compile: bool, graphs: bool, matmul_dtype: torch.dtype = torch.float32) -> None:
    """Make the model fast where it is; after this it must neither be moved nor converted.

    compile: on a GPU the network's parts and the VAE, each when it first runs with new shapes (seconds to a
    minute); what was compiled is kept on disk, under $TORCHINDUCTOR_CACHE_DIR or $XDG_CACHE_HOME/lotus2_ros. Where
    nothing can be compiled, a warning says why, and the model runs all the same: slower, with the same results.
    graphs: on a GPU, record the work for each image size once and replay it. On a CPU both are without effect: there
    the products, which a compiler leaves to torch's slower library, matter more than what it fuses.
    matmul_dtype: the dtype in which a CPU multiplies what the linear layers of a float32 model are given.
    """
    keep_freed_memory()  # on a GPU too, where messages and clouds are still made by the CPU
    model.vae.to(memory_format=torch.channels_last)
    for module in model.vae.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = True  # on a norm's output, which nothing else needs
    if model.device.type == "cuda":
        if compile:
            compile_model(model)
        torch.backends.cudnn.benchmark = True
        model.batched = True
        model.executor = _with_attention(Graphs(CudaRecorder()) if graphs else model.executor)
    else:
        model.batched = False  # measured: one task after the other takes four fifths of the time
        linears = [module for module in model.modules() if isinstance(module, FloatLinear)]
        if sum(linear.weight.nbytes for linear in linears) <= PACKED_BYTES:
            for linear in linears:
                linear.prepack(matmul_dtype)


def _with_attention(launch: Launch) -> Launch:
    def launch_with_attention(key: tuple, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        with sdpa_kernel(ATTENTION, set_priority=True):
            return launch(key, function, *tensors)

    return launch_with_attention


def compile_model(model: InferenceModel) -> None:
    """Compile the model's network and its VAE when they first run, or warn that it cannot be done."""
    _keep_compiled()
    problem = compile_problem(model.device)
    if problem is not None:
        log.warning("nothing is compiled, so the model runs slower than it could: %s", problem)
        return
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, VARIANTS)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 4 * VARIANTS)
    for part, for_all_sizes in model.compiled_parts().items():
        part.compile(dynamic=None if for_all_sizes else False)


def _keep_compiled() -> None:
    """Have torch keep what it compiles; in a temporary folder, its own choice, it would not outlive the machine."""
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lotus2_ros" / "inductor"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or not a writable one
        return
    if os.access(cache, os.W_OK):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)


def compile_problem(device: torch.device) -> str | None:
    """Why torch.compile does not work for this device here, or None if it does: found by trying.

    It needs a C++ compiler, on a GPU Triton, Python's headers and a C compiler, and a folder it may write to.
    """
    probe = torch.ones(16, device=device)
    try:
        result = torch.compile(lambda x: x.sin() * 2 + 1)(probe)
    except Exception as error:  # by nature whatever the compilers and linkers of a machine come up with
        return first_line(error)
    expected = probe.sin() * 2 + 1
    return None if torch.allclose(result, expected) else "a compiled test function gave a wrong result"


def choose_resolution(model: InferenceModel) -> int:
    """The processing resolution for the device at hand, at most the model's own.

    On a GPU, by the rate at which it multiplies in the model's precision, the largest of `RESOLUTIONS` at which a 4:3
    image is expected to take `FRAME_TIME` at most for one task; on a CPU the model's own.
    """
    if model.device.type != "cuda":
        return model.settings.process_resolution
    rate = matmul_rate(model.device, model.linear_precision, model.dtype)
    return affordable_resolution(model, rate, matmul_rate(model.device, "bfloat16", model.vae.dtype))


def affordable_resolution(model: InferenceModel, rate: float, vae_rate: float) -> int:
    """`choose_resolution` by the FLOP/s of the transformer's and of the VAE's products."""
    candidates = [resolution for resolution in RESOLUTIONS if resolution <= model.settings.process_resolution]
    for resolution in reversed(candidates[1:]):
        size = model.process_size(round(resolution / ASPECT), resolution, resolution)
        flops = count_frame(model, *size, model.tasks[:1])
        floor = flops.core / rate + (flops.encode + flops.decode) / vae_rate
        if floor / EFFICIENCY <= FRAME_TIME:
            return resolution
    return candidates[0] if candidates else model.settings.process_resolution


@torch.inference_mode()
def matmul_rate(device: torch.device, precision: str, dtype: torch.dtype, size: int = 4096, runs: int = 8) -> float:
    """FLOP/s of a large linear layer of that precision on activations of `dtype`; takes some milliseconds on a GPU."""
    with torch.device(device):
        layer = make_linear(precision, size, size, bias=False)
        layer.load_state_dict(store_linear(precision, torch.randn(size, size), None))
        layer.to(dtype)
        x = torch.randn(size, size, dtype=dtype)
    for _ in range(2):
        layer(x)
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(runs):
        layer(x)
    _synchronize(device)
    return 2 * size**3 * runs / (time.perf_counter() - start)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
