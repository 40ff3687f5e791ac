"""Making a loaded model fast on its device: memory formats, kernels, compilation, CUDA graphs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lotus2_ros.config.errors import first_line
from lotus2_ros.model.engine.choice import EngineChoice
from lotus2_ros.model.engine.device import keep_freed_memory
from lotus2_ros.model.engine.flops import count_frame
from lotus2_ros.model.engine.graphs import CudaRecorder, Graphs
from lotus2_ros.model.engine.memory import frame_bytes, room_for_frames
from lotus2_ros.model.engine.stored import cache_folder
from lotus2_ros.model.layers.linear import FloatLinear, make_linear, store_linear
from lotus2_ros.model.layers.quantization import has_quantized_matmul
from lotus2_ros.model.memory import GIGABYTE
from lotus2_ros.model.torch_model import Executor, InferenceModel

log = logging.getLogger(__name__)

# Fastest first on current GPUs. torch skips those that do not support the GPU, the dtype or the shapes.
ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
# Variants of one block's compiled code: resolutions, sets of adapters, batch sizes. torch's default limit is 8.
VARIANTS = 256
# Packed weights need memory of their own, so only small models use them.
PACKED_BYTES = 1 << 30

RESOLUTIONS = (384, 512, 640, 768, 1024)
ASPECT = 4 / 3
FRAME_TIME = 1 / 15  # seconds, at most, for a frame of the chosen resolution
EFFICIENCY = 0.7  # share of the measured matmul rate that a whole frame reaches


def optimize(
    model: InferenceModel,
    *,
    compile: bool,
    graphs: bool,
    engine: EngineChoice | None = None,
) -> None:
    """Make the model fast on its device. Afterwards it must not be moved or converted.

    compile: on a GPU, compile the network's parts and the VAE, each when it first runs with new shapes (seconds to a
    minute). Compiled code is cached on disk, under $TORCHINDUCTOR_CACHE_DIR or $XDG_CACHE_HOME/lotus2_ros. If
    compilation does not work here, a warning says why, and the model runs eagerly with the same results.
    graphs: on a GPU, record the work for each image size as CUDA graphs. Both have no effect on a CPU.
    engine: what runs the model on a CPU, by default torch.
    """
    keep_freed_memory()  # also with a GPU: messages and clouds are made on the CPU
    model.hold_channels_last()
    for module in model.vae.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = True  # its input is a norm's output, which is not used elsewhere
    if model.device.type == "cuda":
        if compile:
            compile_model(model)
        torch.backends.cudnn.benchmark = True
        model.batched = True
        model.executor = _with_attention(Graphs(CudaRecorder()) if graphs else model.executor)
    else:
        model.batched = False  # measured: one task after the other takes 0.8 of the time of a batch
        linears = [module for module in model.modules() if isinstance(module, FloatLinear)]
        if sum(linear.weight.nbytes for linear in linears) <= PACKED_BYTES:
            for linear in linears:
                linear.prepack()
    if engine is not None and engine.tries_openvino(model):
        from lotus2_ros.model.engine.openvino import CompiledStages

        model.executor = CompiledStages(model, engine)


def _with_attention(executor: Executor) -> Executor:
    """The executor, in whose functions torch chooses among the kernels of ATTENTION."""

    def execute(key: tuple, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        with sdpa_kernel(ATTENTION, set_priority=True):
            return executor(key, function, *tensors)

    return execute


def compile_model(model: InferenceModel) -> None:
    """Compile network and VAE when they first run, or log a warning that compilation does not work."""
    import torch._dynamo  # takes a second, and most models are not compiled

    _keep_compiled()
    problem = compile_problem(model.device)
    if problem is not None:
        log.warning("torch.compile does not work here, so the model runs slower: %s", problem)
        return
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, VARIANTS)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 4 * VARIANTS)
    torch.compiler.assume_constant_result(has_quantized_matmul)
    for part, for_all_sizes in model.compiled_parts().items():
        part.compile(dynamic=None if for_all_sizes else False)


def _keep_compiled() -> None:
    """Set a lasting folder for compiled code; torch's default is a temporary one."""
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    folder = cache_folder("inductor")
    if folder is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def is_compiled(model: InferenceModel) -> bool:
    return any(part._compiled_call_impl is not None for part in model.compiled_parts())


def compile_problem(device: torch.device) -> str | None:
    """Try torch.compile on this device: the reason why it does not work, or None.

    It needs a C++ compiler and a writable folder; on a GPU also Triton, Python's headers and a C compiler.
    """
    probe = torch.ones(16, device=device)
    try:
        result = torch.compile(lambda x: x.sin() * 2 + 1)(probe)
    except Exception as error:  # compilers and linkers raise errors of any type
        return first_line(error)
    expected = probe.sin() * 2 + 1
    return None if torch.allclose(result, expected) else "a compiled test function gave a wrong result"


def choose_resolution(model: InferenceModel) -> int:
    """The processing resolution for the device at hand, at most the model's own.

    On a CPU the model's own. On a GPU the largest of `RESOLUTIONS` at which one task of a 4:3 image is expected to take
    at most `FRAME_TIME`, by the GPU's measured matmul rate in the model's precision, and all tasks fit its memory.
    """
    if model.device.type != "cuda":
        return model.settings.process_resolution
    compiled = is_compiled(model)
    rate = matmul_rate(model.device, model.linear_precision, model.dtype, compiled=compiled)
    vae_rate = matmul_rate(model.device, "bfloat16", model.vae.dtype, compiled=compiled)
    return fitting_resolution(model, affordable_resolution(model, rate, vae_rate), room_for_frames(model.device))


def affordable_resolution(model: InferenceModel, rate: float, vae_rate: float) -> int:
    """The resolution by time, from the matmul rates (FLOP/s) of the transformer and of the VAE."""
    candidates = [resolution for resolution in RESOLUTIONS if resolution <= model.settings.process_resolution]
    for resolution in reversed(candidates[1:]):
        flops = count_frame(model, *_frame_size(model, resolution), model.tasks[:1])
        floor = flops.core / rate + (flops.encode + flops.decode) / vae_rate
        if floor / EFFICIENCY <= FRAME_TIME:
            return resolution
    return candidates[0] if candidates else model.settings.process_resolution


def fitting_resolution(model: InferenceModel, wanted: int, room: int) -> int:
    """The resolution by memory: the largest of `RESOLUTIONS` up to `wanted` whose frames need at most `room` bytes.

    If none does, a warning says so, and it is the smallest.
    """
    candidates = [wanted, *(resolution for resolution in reversed(RESOLUTIONS) if resolution < wanted)]
    for resolution in candidates:
        needed = frame_bytes(model, *_frame_size(model, resolution))
        if needed <= room:
            return resolution
    log.warning(
        "frames of %d px need about %.1f GB beside the weights, and %.1f GB are left: expect to run out of memory",
        candidates[-1], needed / GIGABYTE, max(room, 0) / GIGABYTE,
    )  # fmt: skip
    return candidates[-1]


def _frame_size(model: InferenceModel, resolution: int) -> tuple[int, int]:
    return model.process_size(round(resolution / ASPECT), resolution, resolution)


@torch.inference_mode()
def matmul_rate(
    device: torch.device,
    precision: str,
    dtype: torch.dtype,
    size: int = 4096,
    runs: int = 8,
    compiled: bool = False,
) -> float:
    """FLOP/s of a large linear layer in a precision, with activations of `dtype`, compiled if the model is.

    Takes milliseconds on a GPU, and seconds to compile.
    """
    with torch.device(device):
        layer = make_linear(precision, size, size, bias=False)
        layer.load_state_dict(store_linear(precision, torch.randn(size, size), None))
        layer.to(dtype)
        x = torch.randn(size, size, dtype=dtype)
    if compiled:
        layer.compile(dynamic=False)
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
