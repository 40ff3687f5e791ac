"""OpenVINO: each stage of a model compiled for its image size, on a CPU or on another device that OpenVINO has.

A stage is a function that the model gives to its executor: the encoder, a pass of the network for a task, which is
the core predictor or an Euler step of the sharpener, or the decoder. It is traced with its tensors, converted, compiled
and kept on disk. What cannot be compiled runs in torch, with a warning.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lotus2_ros.config.errors import first_line
from lotus2_ros.model.engine.choice import OPENVINO, EngineChoice
from lotus2_ros.model.engine.device import ALL_THREADS, use_threads
from lotus2_ros.model.engine.graphs import one_thread
from lotus2_ros.model.engine.stored import StoredStages, cache_folder, fingerprint
from lotus2_ros.model.torch_model import InferenceModel

log = logging.getLogger(__name__)

Run = Callable[..., Tensor]

STAGES = 24  # kept in memory: of three or four image sizes with all tasks and the sharpener
RUNS = 3  # of each engine, to see which is faster
BESIDE = 0.3  # CPUs that other programs may take from the model meanwhile
# Relative to torch's result. A compiled stage that is further away is not used.
BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
# Before a stage on disk: it is to be used; torch is faster, so it is not there; it was not timed against torch.
CHOSEN, FASTER_IN_TORCH, UNTIMED = b"+", b"-", b"?"
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


def import_openvino() -> ModuleType:
    """The package, without the module that reports its use to its makers over the network."""
    missing = object()
    telemetry = sys.modules.get("openvino_telemetry", missing)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it now raises ImportError
    try:
        import openvino
    finally:
        if telemetry is missing:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = telemetry  # type: ignore[assignment]
    return openvino


class CompiledStages:
    """A `TorchModel.executor` that compiles each stage for each shape of its tensors, and runs it.

    Where the engine is `auto`, a stage is compiled and timed against torch when it first runs, and the faster one runs
    it from then on, also after the next start. On a busy machine it is used untimed, because there a few runs take long
    and tell little; the next start times it. The `STAGES` most recently used are kept.
    """

    def __init__(self, model: InferenceModel, engine: EngineChoice) -> None:
        self._openvino = import_openvino()
        self._engine = engine
        self._core = self._openvino.Core()
        self._device_name = self._name_of(engine.openvino_device)
        made_from = f"{fingerprint(model)} openvino {self._openvino.__version__}"
        self._stored = StoredStages(cache_folder(OPENVINO), made_from)
        self._stages: dict[tuple, Run | None] = {}  # None: torch runs it
        self._lock = threading.Lock()

    def _name_of(self, device: str) -> str:
        """A device's full name. Raises ValueError if there is no such device here."""
        try:
            return str(self._core.get_property(device, "FULL_DEVICE_NAME"))
        except RuntimeError:
            there = ", ".join(f"openvino:{name}" for name in self._core.available_devices)
            raise ValueError(f"expected model.device {there} as OpenVINO finds here, got openvino:{device}") from None

    def __len__(self) -> int:
        """How many stages OpenVINO runs."""
        return sum(stage is not None for stage in self._stages.values())

    @torch.inference_mode()
    def __call__(self, key: tuple, function: Run, *tensors: Tensor) -> Tensor:
        with one_thread(self._lock):
            case = (key, *((tuple(tensor.shape), tensor.dtype) for tensor in tensors))
            stage = self._stages.pop(case) if case in self._stages else self._prepare(case, function, tensors)
            self._stages[case] = stage  # most recently used last
            while len(self._stages) > STAGES:
                del self._stages[next(iter(self._stages))]
            return function(*tensors) if stage is None else stage(*tensors)

    def _prepare(self, case: tuple, function: Run, tensors: tuple[Tensor, ...]) -> Run | None:
        """The compiled stage; None if torch is to run it. Both come from disk if an earlier start left them there."""
        device, dtype = self._engine.openvino_device, self._engine.openvino_dtype
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            options |= {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": self._engine.threads or ALL_THREADS}
        place = (self._engine.name, case, device, options, self._device_name)
        name = " ".join(map(str, _flat(case[0])))
        try:
            stored = self._stored.read(*place) or b""
            mark, blob = stored[:1], stored[1:]
            if mark == FASTER_IN_TORCH:
                return None
            compiled = self._read(blob, device, options)
            if compiled is None:
                mark, compiled = b"", self._core.compile_model(self._convert(function, tensors), device, options)
                blob = compiled.export_model().getvalue()
            stage = run_compiled(compiled)
            if mark == CHOSEN or (mark == UNTIMED and is_busy()):
                return stage
            check_equal(stage(*tensors), function(*tensors), BOUNDS[dtype])
            mark = self._compare(name, stage, function, tensors) if self._engine.name == "auto" else CHOSEN
            self._stored.write(mark if mark == FASTER_IN_TORCH else mark + blob, *place)
            return None if mark == FASTER_IN_TORCH else stage
        except Exception as error:  # converters and compilers raise errors of any type
            log.warning("%s runs in torch instead of OpenVINO: %s", name, reason_of(error))
            return None

    def _read(self, blob: bytes, device: str, options: dict[str, Any]) -> Any:
        """A compiled stage from disk; None if there is none, or one that OpenVINO does not take."""
        try:
            return self._core.import_model(blob, device, options) if blob else None
        except RuntimeError as error:
            log.info("a compiled stage is made again: %s", reason_of(error))
            return None

    def _compare(self, name: str, stage: Run, function: Run, tensors: tuple[Tensor, ...]) -> bytes:
        """The mark of a stage by its time and torch's; UNTIMED if other programs want the same CPUs."""
        if is_busy():
            return UNTIMED
        start, others = time.perf_counter(), seconds_of_others()
        ours, torchs = self._measure(lambda: stage(*tensors), lambda: function(*tensors))
        cpus = os.cpu_count() or 1
        free = cpus - (self._engine.threads or cpus)
        if seconds_of_others() - others > (free + BESIDE) * (time.perf_counter() - start):
            return UNTIMED
        log.info("%s: OpenVINO %.1f ms, torch %.1f ms", name, 1e3 * ours, 1e3 * torchs)
        return CHOSEN if ours <= torchs else FASTER_IN_TORCH

    def _convert(self, function: Run, tensors: tuple[Tensor, ...]) -> Any:
        # Tracing needs tensors that autograd could follow.
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer: sizes become constants, and they are
            inputs = tuple(tensor.clone() for tensor in tensors)
            traced = torch.jit.trace(TracedFunction(function), inputs, check_trace=False)
            shapes = [tuple(tensor.shape) for tensor in inputs]
            with _logging_unchanged():
                return self._openvino.convert_model(traced, example_input=inputs, input=shapes)

    def _measure(self, *runs: Callable[[], object]) -> list[float]:
        """The shortest time of each in seconds, run in turn, in a thread that has the threads of the model.

        In the thread that calls, which may not be the model's, torch may have another number of them.
        """

        def measure() -> list[float]:
            use_threads(self._engine.threads)
            with torch.inference_mode():
                rounds = [[seconds(run) for run in runs] for _ in range(RUNS)]
            return [min(times) for times in zip(*rounds, strict=True)]

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(measure).result()


def run_compiled(compiled: Any) -> Run:
    """A compiled model of OpenVINO as a function of tensors."""
    request = compiled.create_infer_request()

    def run(*tensors: Tensor) -> Tensor:
        arrays = [tensor.contiguous().numpy() for tensor in tensors]
        output = request.infer(arrays, share_inputs=True, share_outputs=True)[0]
        return torch.from_numpy(output).clone()  # the next run overwrites it

    return run


def reason_of(error: Exception) -> str:
    """One line. OpenVINO's errors begin with the places in its code that they went through."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from ")]
    return lines[0].strip()[:200] if lines else first_line(error)


def check_equal(result: Tensor, expected: Tensor, bound: float) -> None:
    """Raise RuntimeError if a result is further from torch's than `bound`, a share of its norm."""
    difference, size = float((result - expected).norm()), float(expected.norm())
    if not difference <= bound * size:
        raise RuntimeError(f"expected torch's result, got one that is {difference / size:.1g} away")


class TracedFunction(nn.Module):
    """A function as a module, which can be traced."""

    def __init__(self, function: Run) -> None:
        super().__init__()
        self._function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._function(*tensors)


@contextmanager
def _logging_unchanged() -> Iterator[None]:
    """OpenVINO's converter silences the root logger, and after an error leaves it so."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def is_busy() -> bool:
    """Whether more threads want to run than there are CPUs, so that times of a few runs mean little."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


def seconds_of_others() -> float:
    """CPU seconds that other programs have used since the start of the machine; 0 where that is not told."""
    try:
        counts = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, counts)
    own = os.times()
    busy = user + nice + system + interrupts + soft_interrupts + stolen
    return busy / os.sysconf("SC_CLK_TCK") - own.user - own.system


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _flat(key: tuple) -> list[object]:
    return [part for item in key for part in (_flat(item) if isinstance(item, tuple) else [item])]
