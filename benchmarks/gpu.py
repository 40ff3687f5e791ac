"""The models at their true size on a GPU: as public code runs Lotus-2 and as all run here, against the card's best.

    python -m benchmarks.gpu --output gpu_bench

Needs no weights: speed does not depend on their values, so random ones are made on the GPU. Plain is diffusers'
`FluxTransformer2DModel` in bfloat16, eager, PEFT adapters unmerged, the prompt's embeddings cached, with the same VAE
and everything around it. Rows come as they are measured; near the deadline, what is left is skipped and named. Floors
are the products' operations by the card's own rate of large products, and the time to read the weights by its rate of
copies. A card that is too small for a variant skips it and names it: one of 12 to 24 GB measures the eight-bit and
four-bit variants at smaller sizes. `--tiny` runs all of it with tiny models, on a CPU where there is no GPU.

Exit code 1 if results are wrong: compiled and recorded against eager, products against float32.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.ceilings import Ceilings, measure_ceilings, operators
from benchmarks.checks import relative_error, wrong_products
from benchmarks.core_loop import run_core_loop
from benchmarks.lotus_models import FAMILIES, SMALL, TRUE
from benchmarks.models import FLUX, TASKS, TINY
from benchmarks.report import Report
from benchmarks.rows import TASK, Row, measure_row
from benchmarks.timing import machine, median_ms
from benchmarks.variants import PLAIN, Variants, core_bytes
from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.engine.flops import weight_bytes
from lotus2_ros.model.engine.memory import free_compiled
from lotus2_ros.model.engine.runtime import choose_resolution, optimize
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.torch_model import InferenceModel

PRECISIONS = "bfloat16,float8,int8,nf4"
LOOPED = ("bfloat16", "float8")
SIZES = "640x480,1024x1024,384x288,768x768,512x384"  # the most telling first
SMALL_CARD, SMALL_SIZES = 32.0, "640x480,384x288,512x384"  # GB below which a card has fewer sizes, and those
RESERVE = 70.0  # seconds kept for each variant still to come
LOOP_SECONDS = 45.0  # for both core loops of a variant, at most
FEWEST_FRAMES = 20
# Largest relative difference of fast results from eager ones: rounding to bfloat16 in another order.
CONSISTENT = 0.1


@dataclass
class Bench:
    """One run: what to measure, on what, and until when."""

    models: Variants
    sizes: list[tuple[int, int]]  # width, height
    variants: list[str]
    seconds: float  # for each figure
    frames: int
    deadline: float
    ceilings: Ceilings
    report: Report
    memory: float  # bytes of the card
    wrong: list[str] = field(default_factory=list)

    def run(self) -> None:
        for number, variant in enumerate(self.variants):
            if number and self.left() < 0:
                self.report.note(f"{variant}: skipped for the deadline")
                continue
            if math.isfinite(self.memory) and (needed := self.models.needed(variant, self.sizes[0])) > self.memory:
                self.report.note(f"{variant}: skipped, needs {needed / 1e9:.1f} of {self.memory / 1e9:.1f} GB")
                continue
            reserve = RESERVE * (len(self.variants) - 1 - number)
            for compiled in (True, False):
                what = f"{variant}, {'' if compiled else 'not '}compiled"
                is_measured = self.report.attempt(what, partial(self.measure, variant, reserve, compiled))
                free_compiled()
                if is_measured or variant == PLAIN:
                    break
            if not any(row.variant.startswith(variant) for row in self.report.rows):
                self.wrong.append(f"{variant}: does not run")

    def measure(self, variant: str, reserve: float, compiled: bool) -> None:
        """All sizes of one variant; at the first of them also whether it is right, and the latencies of the loop.

        compiled: unless that failed; then what it left is measured eager, in rows that say so.
        """
        model, expected = self.make(variant, compiled)
        estimator = Estimator(model, Config())
        name = variant + ("" if compiled else ", eager")
        done = {(row.width, row.height) for row in self.report.rows if row.variant == variant}
        for size in [size for size in self.sizes if size not in done]:
            first = size == self.sizes[0]
            spare = self.left() - reserve - self.report.expected_seconds(name)
            if not first and spare < 0:
                self.report.note(f"{variant} {size[0]}x{size[1]}: skipped for the deadline")
                continue
            begun = time.monotonic()
            both = variant != PLAIN and (first or spare > 0)
            work, weights = self.models.work(variant, size), core_bytes(model)
            row = measure_row(estimator, name, work, weights, size, self.seconds, self.ceilings, both=both)
            self.report.add(row, time.monotonic() - begun)
            if first and expected is not None:
                self.compare(variant, self.results(model), expected)
            if first and variant in LOOPED:
                self.report.attempt(f"{name}: core loop", partial(self.loops, estimator, row, reserve))
        if isinstance(model, FusedLotus2) and variant in LOOPED:
            self.report.attempt(f"{name}: resolution", partial(self.note_resolution, name, model))
            if self.left() > reserve + self.report.expected_seconds(variant):
                self.report.attempt(f"{name}: batch", partial(self.compare_batch, model))

    def make(self, variant: str, compiled: bool) -> tuple[GeometryModel, list[Tensor] | None]:
        """A model, and what it gave before it was made fast."""
        begun = time.monotonic()
        model, expected = self.models.make(variant), None
        if isinstance(model, FusedLotus2):
            self.note_weights(variant, model)
        if isinstance(model, InferenceModel) and variant != PLAIN:
            expected = self.results(model)
            optimize(model, compile=compiled, graphs=True)
        self.report.note(f"{variant}: made in {time.monotonic() - begun:.0f} s")
        return model, expected

    def note_resolution(self, variant: str, model: FusedLotus2) -> None:
        self.report.note(f"{variant}: resolution chosen for this device: {choose_resolution(model)}")

    def note_weights(self, variant: str, model: FusedLotus2) -> None:
        depth_only = weight_bytes(model, tasks=(TASK,)) / 1e9
        self.report.held[variant] = depth_only
        device = self.models.device
        held = f", {torch.cuda.memory_allocated() / 1e9:.2f} held" if device.type == "cuda" else ""
        self.report.note(
            f"{variant}: weights {depth_only:.2f} GB for depth with its sharpener, "
            f"{weight_bytes(model) / 1e9:.2f} for both tasks with theirs{held}"
        )

    @torch.inference_mode()
    def results(self, model: GeometryModel) -> list[Tensor]:
        """Of every function of the network, on one image of the first size."""
        width, height = self.sizes[0]
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1
        latent = model.encode(image.to(self.models.device))
        found = [latent, *model.predict(latent, TASKS).values(), model.decode(latent)]
        return [*found, model.velocity(latent, TASK, 0.5)] if isinstance(model, Lotus2) else found

    def compare(self, variant: str, fast: list[Tensor], expected: list[Tensor]) -> None:
        errors = [relative_error(a, b) for a, b in zip(fast, expected, strict=True)]
        self.report.note(f"{variant}: fast against eager, relative: {', '.join(f'{error:.1e}' for error in errors)}")
        if not all(error <= CONSISTENT for error in errors):
            self.wrong.append(f"{variant}: fast and eager results differ by {max(errors):.2g}")

    @torch.inference_mode()
    def compare_batch(self, model: FusedLotus2) -> None:
        """Whether both tasks are faster as one batch, which reads the weights once, or one after the other."""
        width, height = self.sizes[0]
        pixels = torch.rand(1, 3, height, width, device=self.models.device) * 2 - 1
        latent, times = model.encode(pixels), {}
        for batched in (True, False):
            model.batched = batched
            times[batched] = median_ms(lambda: model.predict(latent, TASKS), self.models.device, self.seconds)
        self.report.note(
            f"{model.plan.precision} {width}x{height}: both tasks' core pass as one batch {times[True]:.2f} ms, "
            f"one after the other {times[False]:.2f} ms"
        )

    def loops(self, estimator: Estimator, row: Row, reserve: float) -> None:
        """The core loop, of a camera slow enough for one Euler step after each frame."""
        period = 1.1e-3 * (row.frame + (row.step or 0.0))
        frames = min(self.frames, int(min(LOOP_SECONDS, self.left() - reserve) / 2 / period))
        if frames < FEWEST_FRAMES:
            self.report.note(f"{row.variant}: core loop skipped for the deadline")
            return
        image = torch.randint(0, 256, (row.height, row.width, 3), dtype=torch.uint8)
        for busy in (False, True):
            self.report.add_loop(row, busy, frames, run_core_loop(estimator, image, period, frames, busy=busy))

    def left(self) -> float:
        return self.deadline - time.monotonic()


def card_memory(device: torch.device) -> float:
    """Bytes; infinite on a CPU, where tiny models run."""
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else math.inf


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for gpu.md and gpu.json")
    parser.add_argument(
        "--sizes", help=f"WIDTHxHEIGHT, multiples of 16 (default: {SIZES}; below {SMALL_CARD:g} GB: {SMALL_SIZES})"
    )
    parser.add_argument("--memory", type=float, help="GB of the card to plan for (default: this card's)")
    parser.add_argument("--precisions", default=PRECISIONS, help=f"some of {PRECISIONS}; plain is always measured")
    parser.add_argument("--deadline", type=float, default=440.0, help="seconds after which nothing new is begun")
    parser.add_argument("--frames", type=int, default=300, help="frames of the core loops")
    parser.add_argument(
        "--seconds", type=float, default=0.6, help="for each figure of a model; half of it for each of the card"
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny model; runs without a GPU")
    return parser.parse_args()


def main() -> int:
    started = time.monotonic()
    options = parse()
    if not torch.cuda.is_available() and not options.tiny:
        print(f"needs a CUDA GPU, but torch {torch.__version__} sees none; --tiny runs without", file=sys.stderr)
        return 2
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    shape, lotus1, side, copied = (TINY, SMALL, 256, 1 << 20) if options.tiny else (FLUX, TRUE, 8192, 1 << 31)
    ceilings = measure_ceilings(device, side, copied, options.seconds / 2)
    rates = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in ceilings.rates.items())
    title = f"{machine(device)}; TFLOP/s: {rates}; copies {ceilings.bandwidth / 1e12:.2f} TB/s"
    print(title, flush=True)
    report = Report(title, options.output, has_aims=not options.tiny)
    memory = 1e9 * options.memory if options.memory else card_memory(device)
    chosen = options.sizes or (SMALL_SIZES if memory < 1e9 * SMALL_CARD else SIZES)
    sizes = [(int(width), int(height)) for width, height in (size.split("x") for size in chosen.split(","))]
    variants = [PLAIN, *options.precisions.split(","), *FAMILIES]
    deadline = started + options.deadline
    models = Variants(device, shape, lotus1)
    bench = Bench(models, sizes, variants, options.seconds, options.frames, deadline, ceilings, report, memory)
    report.attempt("products", lambda: bench.wrong.extend(wrong_products(device, report.note)))
    transformer, (width, height) = shape.configs["transformer"], sizes[0]
    heads, head_size = transformer["num_attention_heads"], transformer["attention_head_dim"]
    tokens = shape.prompt_tokens + width * height // 256
    rows = partial(operators, device, tokens, heads * head_size, heads, options.seconds / 2)
    report.attempt("operators", lambda: report.operators.extend(rows()))
    bench.run()
    report.write()
    print(f"\n{report.tables()}\n{time.monotonic() - started:.0f} s in all")
    print("".join(f"WRONG: {problem}\n" for problem in bench.wrong), end="")
    return 1 if bench.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
