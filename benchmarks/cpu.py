"""The bundled model on the CPU: as it runs here, and as plain diffusers modules on the same weights.

    python -m benchmarks.cpu [--threads 1,2] [--rounds 30]

One image of 640x480. Ours as it comes: float32, its products in bfloat16 where the CPU has those. Plain:
`FluxTransformer2DModel` with its own forward and unmerged PEFT adapters, and `AutoencoderKL`, in float32, with
everything around them (image to network and back, the same for both) in the last rows only. Both run in turn; medians,
in milliseconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.models import run_by_diffusers
from benchmarks.timing import interleaved_ms, machine, markdown
from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.engine.runtime import optimize
from lotus2_ros.model.layers.precision import resolve_matmul_dtype
from lotus2_ros.model.load import BUNDLED, load_model
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import load_bundle

WIDTH, HEIGHT = 640, 480


def load_models() -> dict[str, Lotus2]:
    cpu = torch.device("cpu")
    ours = load_model(device=cpu)
    optimize(ours, compile=False, graphs=False, matmul_dtype=resolve_matmul_dtype("auto"))
    return {"plain": run_by_diffusers(load_bundle(BUNDLED, device=cpu, dtype=torch.float32)), "ours": ours}


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
        "network, normals": lambda: network(model, pixels, ("normals",)),
        "network, both": lambda: network(model, pixels, ("depth", "normals")),
        "640x480 image to depth": lambda: estimator.predict(image, tasks=("depth",)).depth,
        "640x480 image to both": lambda: estimator.predict(image).depth,
    }


def network(model: Lotus2, pixels: Tensor, tasks: Sequence[str]) -> Tensor:
    """From the image as the network sees it to the annotations at that size."""
    return model.decode(torch.cat(list(model.predict(model.encode(pixels), tasks).values())))


@torch.inference_mode()
def measure(models: Mapping[str, Lotus2], rounds: int) -> list[tuple[str, float, float, float]]:
    """Rows of stage, plain, ours, ratio."""
    runs = {name: stages(model) for name, model in models.items()}
    rows = []
    for stage in runs["ours"]:
        times = interleaved_ms({name: run[stage] for name, run in runs.items()}, rounds)
        rows.append((stage, times["plain"], times["ours"], times["plain"] / times["ours"]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas")
    parser.add_argument("--rounds", type=int, default=30, help="runs of each")
    options = parser.parse_args()
    print(machine(torch.device("cpu")))
    models = load_models()
    for threads in map(int, options.threads.split(",")):
        torch.set_num_threads(threads)
        header = (f"{threads} thread{'s' * (threads > 1)}", "plain, ms", "ours, ms", "ratio")
        print(f"\n{markdown(header, measure(models, options.rounds))}", flush=True)


if __name__ == "__main__":
    main()
