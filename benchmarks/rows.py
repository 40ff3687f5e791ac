"""One row of the GPU's table: a model at one image size."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.ceilings import Ceilings
from benchmarks.timing import median_ms
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.engine.device import Download, copy_stream
from lotus2_ros.model.engine.flops import Flops, count_frame, count_step
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.torch_model import InferenceModel
from lotus2_ros.scale.filter import ScaleFilter

TASK = "depth"
SIGMA = 0.5


@dataclass(frozen=True)
class Row:
    """Milliseconds, unless it says otherwise; None: not measured."""

    variant: str
    width: int
    height: int
    encode: float
    core: float
    decode: float
    step: float | None
    frame: float
    core_both: float | None
    frame_both: float | None
    node_frame: float  # all that the node asks of a frame: a camera, a reference, and a filter that lasts
    align: float  # the step of it that makes depth metric
    memory: float | None  # GB taken from the card while frames are predicted
    core_floor: float
    frame_floor: float
    step_floor: float | None

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Work:
    """What a row's stages must do, whoever does it."""

    frame: Flops
    step: int | None  # None: there is no sharpener


@torch.inference_mode()
def measure_row(
    estimator: Estimator,
    variant: str,
    work: Work,
    weights: int,
    size: tuple[int, int],
    seconds: float,
    ceilings: Ceilings,
    *,
    both: bool,
) -> Row:
    """A model at one size (width, height); weights: bytes that a pass reads; both: with normals too."""
    model, device = estimator.model, estimator.device
    width, height = size
    pixels = torch.rand(1, 3, height, width, device=device) * 2 - 1
    latent = model.encode(pixels)
    stream = copy_stream(device)
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    everything = model.tasks

    def frame(tasks: Sequence[str]) -> None:
        geometry = estimator.predict(image, tasks=tasks)
        Download({"depth": geometry.depth, "normals": geometry.normals}, stream).wait()

    node_frame = NodeFrame(estimator, image, everything if both else (TASK,))
    host = torch.device("cpu")  # a frame begins and ends there, so its time is the host's
    encode = median_ms(lambda: model.encode(pixels), device, seconds)
    core = median_ms(lambda: model.predict(latent, (TASK,)), device, seconds)
    decode = median_ms(lambda: model.decode(latent), device, seconds)
    step = (
        median_ms(lambda: model.velocity(latent, TASK, SIGMA), device, seconds) if isinstance(model, Lotus2) else None
    )
    whole = median_ms(lambda: frame((TASK,)), host, seconds)
    core_both = median_ms(lambda: model.predict(latent, everything), device, seconds) if both else None
    frame_both = median_ms(lambda: frame(everything), host, seconds) if both else None
    precision = model.linear_precision if isinstance(model, InferenceModel) else "bfloat16"
    core_floor = floor_ms(work.frame.core, weights, ceilings, precision)
    rest = floor_ms(work.frame.encode + work.frame.decode, 0, ceilings, "bfloat16")
    return Row(
        variant,
        width,
        height,
        encode,
        core,
        decode,
        step,
        whole,
        core_both,
        frame_both,
        median_ms(node_frame, host, seconds),
        statistics.median(node_frame.align),
        memory_gb(device, lambda: frame(everything if both else (TASK,))),
        core_floor,
        core_floor + rest,
        None if work.step is None else floor_ms(work.step, weights, ceilings, precision),
    )


class NodeFrame:
    """One frame after another as the node predicts them: with camera, reference depth and a filter that lasts."""

    def __init__(self, estimator: Estimator, image: Tensor, tasks: Sequence[str]) -> None:
        self._estimator, self._image, self._tasks = estimator, image, tasks
        height, width = image.shape[:2]
        self._camera = Camera.from_intrinsics(width, height, width, width, (width - 1) / 2, (height - 1) / 2)
        self._stream = copy_stream(estimator.device)
        self._filter, self._stamp = ScaleFilter(), 0.0
        disparity = estimator.predict(image, tasks=tasks).disparity
        assert disparity is not None
        self._reference = 1 / (0.5 * disparity.cpu() + 0.1)  # meters, so that the fit finds a scale as it should
        self.align: list[float] = []  # ms of each frame's align step

    def __call__(self) -> None:
        self._stamp += 0.1
        geometry = self._estimator.predict(
            self._image,
            self._camera,
            self._reference,
            tasks=self._tasks,
            scale_filter=self._filter,
            stamp=self._stamp,
        )
        Download({"depth": geometry.depth, "normals": geometry.normals}, self._stream).wait()
        self.align.append(1e3 * geometry.latency["align"])


def memory_gb(device: torch.device, run: Callable[[], None]) -> float | None:
    """What is taken from the card in the long run, without what only trying and recording kernels took."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_reserved(device) / 1e9


def count_work(model: InferenceModel, size: tuple[int, int]) -> Work:
    """At a size (width, height), for the first task."""
    width, height = size
    step = count_step(model, height, width, TASK) if isinstance(model, FusedLotus2) else None
    return Work(count_frame(model, height, width, (TASK,)), step)


def floor_ms(flops: int, read: int, ceilings: Ceilings, precision: str) -> float:
    """The time that the products take at least, or reading the weights if that is longer."""
    return 1e3 * max(flops / ceilings.rate(precision), read / ceilings.bandwidth)
