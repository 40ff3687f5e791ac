"""The bundled model on the CPU: by this package's engines, by plain diffusers and by ONNX Runtime, on the same weights.

    python -m benchmarks.cpu [--threads 1,2] [--rounds 30] [--clock wall|cpu] [--engines plain,torch,openvino]

One image of 640x480. Plain: `FluxTransformer2DModel` with its own forward and unmerged PEFT adapters, in float32; its
VAE is this package's, which has the operations of `AutoencoderKL`. ONNX Runtime: the stages of this package, exported.
In the column with bfloat16 all stages multiply in it. What is around the stages, from the image to
the network and back, is the same for all. All run in turn; medians, in milliseconds. `--clock cpu` counts the time of
all threads of the process on the CPU, which is meaningful on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.models import run_by_diffusers
from benchmarks.timing import interleaved_ms, machine, markdown
from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.model.layers.precision import multiplies_bfloat16
from lotus2_ros.model.load import BUNDLED, load_model
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import load_bundle

WIDTH, HEIGHT = 640, 480
CPU = torch.device("cpu")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def load_models(engines: Sequence[str], threads: int) -> dict[str, Lotus2]:
    """By the name of the column."""
    torch.set_num_threads(threads)
    models: dict[str, Lotus2] = {}
    if "plain" in engines:
        models["plain diffusers"] = run_by_diffusers(load_bundle(BUNDLED, device=CPU, dtype=torch.float32))
    if "onnxruntime" in engines:
        from benchmarks.onnx_stages import OnnxStages

        models["ONNX Runtime"] = load_model(device=CPU)
        models["ONNX Runtime"].executor = OnnxStages(threads)
    columns = [("torch", "torch", "float32"), ("OpenVINO", "openvino", "float32")]
    if multiplies_bfloat16(CPU):
        columns.append(("OpenVINO, bfloat16", "openvino", "auto"))
    for column, engine, dtype in columns:
        if engine in engines:
            estimator = load(device="cpu", engine=engine, dtype=dtype, parameters={"model.threads": threads})
            models[column] = estimator.model
    return models


def stages(model: Lotus2) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    estimator = Estimator(model, Config())
    image = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    coarse = estimator.predict(image)
    height, width = (side * model.vae_factor for side in coarse.latents["depth"].shape[2:])
    pixels = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = model.encode(pixels)
    return {
        "encode": lambda: model.encode(pixels),
        "core, depth": lambda: model.core(latent, "depth"),
        "core, normals": lambda: model.core(latent, "normals"),
        "decode": lambda: model.decode(latent),
        "Euler step, depth": lambda: model.velocity(latent, "depth", 0.5),
        "network, depth": lambda: network(model, pixels, ("depth",)),
        "network, both": lambda: network(model, pixels, ("depth", "normals")),
        "640x480 image to depth": lambda: estimator.predict(image, tasks=("depth",)).depth,
        "640x480 image to both": lambda: estimator.predict(image).depth,
    }


def network(model: Lotus2, pixels: Tensor, tasks: Sequence[str]) -> Tensor:
    """From the image as the network sees it to the annotations at that size."""
    return model.decode(torch.cat(list(model.predict(model.encode(pixels), tasks).values())))


@torch.inference_mode()
def measure(models: Mapping[str, Lotus2], rounds: int, clock: Callable[[], float]) -> list[tuple[str | float, ...]]:
    """Rows of the stage and its time by each model."""
    runs = {name: stages(model) for name, model in models.items()}
    rows: list[tuple[str | float, ...]] = []
    for stage in next(iter(runs.values())):
        times = interleaved_ms({name: run[stage] for name, run in runs.items()}, rounds, clock)
        rows.append((stage, *(times[name] for name in models)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas")
    parser.add_argument("--rounds", type=int, default=30, help="runs of each")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="elapsed time, or that of all threads")
    parser.add_argument(
        "--engines", default="plain,torch,openvino", help="also: onnxruntime, whose export takes minutes"
    )
    options = parser.parse_args()
    print(machine(CPU))
    for threads in map(int, options.threads.split(",")):
        models = load_models(options.engines.split(","), threads)
        header = (f"{threads} thread{'s' * (threads > 1)}, {options.clock} ms", *models)
        print(f"\n{markdown(header, measure(models, options.rounds, CLOCKS[options.clock]))}", flush=True)


if __name__ == "__main__":
    main()
