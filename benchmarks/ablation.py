"""The rows of Lotus-2's ablation (arXiv 2512.01030, Table III), small: the same scenes, steps and seeds for each.

    python -m benchmarks.ablation [--frames FOLDER] [--steps 400] [--seeds 3] [--only clean ...] [--quick]

The bundled model's network from nothing, for depth, on rendered scenes of 64 x 48 pixels, behind the VAE of a trained
bundle, which stays as it is. Each row is measured on held-out scenes of every kind and on recorded frames. What is
trained stays in --work, so that a second run goes on where the first was stopped. With --quick nothing is learnt.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from benchmarks.ablation_figures import fitted, measure
from benchmarks.ablation_report import save_panel, save_report
from lotus2_ros import scenes
from lotus2_ros.data.annotation import disparity_annotation
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.model.image_size import process_size
from lotus2_ros.model.interface import TorchModel
from lotus2_ros.model.load import BUNDLED
from lotus2_ros.model.lotus2.bundle import load_bundle
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.training import rendered
from lotus2_ros.training.config import TrainingConfig, read_config
from lotus2_ros.training.objectives import Objective
from lotus2_ros.training.run import run_stages

CONFIG = Path(__file__).parents[1] / "config/train/without_prior.yaml"
# Of the rendered 160 x 120, so that all sides are whole tokens.
SIZE, LONGER_SIDE = 0.4, 64
EULER_STEPS = 10
CEILING = "the truth through the VAE"
HELD_OUT_SIZE = (160, 120)
FIRST_SEED = 300


@dataclass(frozen=True)
class Training:
    """A network and its stages. `rows`: the paper's names of what comes of each stage."""

    name: str
    rows: tuple[str, ...]
    objectives: tuple[dict[str, Any], ...]
    patch: int = 2


def _single_step(prediction: str, continuity: bool = False) -> dict[str, Any]:
    return {"kind": "single_step", "prediction": prediction, "continuity": continuity}


TRAININGS = (
    Training("stochastic", ("Stochastic-DA",), ({"kind": "stochastic_flow", "steps": EULER_STEPS},)),
    Training("deterministic", ("Deterministic-DA",), ({"kind": "deterministic_flow", "steps": EULER_STEPS},)),
    Training("residual", ("+ Single-Step Formulation",), (_single_step("residual"),)),
    Training("clean", ("+ Clean-Data ScaleInput",), (_single_step("clean"),)),
    Training(
        "continuity",
        ("+ Local Continuity Module", "+ Detail Sharpener"),
        (_single_step("clean", continuity=True), {"kind": "sharpener"}),
    ),
    Training("unpacked", ("(w/o Pack-Unpack)",), (_single_step("clean"),), patch=1),
)


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    views = 1 if args.quick else args.views
    held_out = [_held_out(kind, seed) for kind in scenes.KINDS for seed in range(FIRST_SEED, FIRST_SEED + views)]
    frames = [] if args.frames is None else list(read_frames(args.frames))
    shown = [*held_out[::views], *frames[:1]]
    trainings = [training for training in TRAININGS if training.name in args.only]
    settings = {"steps": args.steps, "held-out views": len(held_out), "recorded frames": len(frames)}
    # The data is the same for all rows and seeds.
    data = configuration(TRAININGS[0], 0, args.steps, args.quick).data
    assert data.source == "scenes"
    rendered.render(args.scenes, data, os.cpu_count() or 1)
    groups = rendered.load(args.scenes, data)
    bundle = load_bundle(args.vae, device=torch.device("cpu"), dtype=torch.float32)
    accelerator = Accelerator()
    found = {CEILING: [measure(partial(through_vae, bundle), held_out, [])]}
    depths: dict[str, list[Tensor]] = {}
    for seed in range(args.seeds):
        for training in trainings:
            config = configuration(training, seed, args.steps, args.quick)
            model = build(config, bundle.vae).to(accelerator.device)
            # Other budgets have other folders: what is finished is not trained again.
            run_stages(accelerator, model, groups, config, args.work / f"{training.name}-{args.steps}-{seed}")
            for row, stage in zip(training.rows, config.stages, strict=True):
                answer = partial(predict, model, stage.objective)
                found.setdefault(row, []).append(measure(answer, held_out, frames))
                if seed == 0:
                    depths[row] = [fitted(answer(sample), sample) for sample in shown]
            save_report(args.output, found, settings)
        if seed == 0:
            images, truths = ([getattr(sample, name) for sample in shown] for name in ("image", "depth"))
            save_panel(args.output / "ablation.png", images, truths, depths)
    print((args.output / "ablation.md").read_text())


def configuration(training: Training, seed: int, steps: int, quick: bool) -> TrainingConfig:
    """The bundled model's, before it grows, with this training's stages: the first of so many steps, those after it of
    half as many."""
    stages = [
        {
            "name": f"stage{number}",
            "objective": objective,
            "size": SIZE,
            "steps": max(1, steps // (2 if number else 1)),
            "batch": 2 if quick else 16,
            "learning_rate": 1e-3,
            "warm_up": steps // 10,
            "mixed_precision": "bf16",
        }
        for number, objective in enumerate(training.objectives)
    ]
    changes = {
        "seed": seed,
        "tasks": ["depth"],
        "network.patch": training.patch,
        "network.single_blocks": 4,
        "network.sharpener_rank": 32,
        "network.process_resolution": LONGER_SIDE,
        "data.shards": 1 if quick else 16,
        "stages": stages,
        "panels_every": steps,
    }
    if quick:
        changes |= {"data.scenes_per_shard": 4, "data.views_per_scene": 1}
    return read_config(CONFIG, [f"{key}={json.dumps(value)}" for key, value in changes.items()])


def build(config: TrainingConfig, vae: torch.nn.Module) -> TrainableLotus2:
    """The untrained network behind a trained VAE; all rows of a seed draw the same weights as far as they have them."""
    assert config.network.source == "scratch"
    torch.manual_seed(config.seed)
    model = config.network.build(config.tasks, config.stages, torch.device("cpu"))
    take_vae(model, vae)
    return model


def take_vae(model: TorchModel, vae: Any) -> None:
    """A copy of the weights of a trained VAE of the same shape, and of what its latents' shift and scale are."""
    model.vae.load_state_dict(vae.state_dict())
    model.vae.scale_latents(shift=vae.config.shift_factor, scale=vae.config.scaling_factor)


@torch.no_grad()
def predict(model: TrainableLotus2, objective: Objective, sample: Sample) -> Tensor:
    """Affine-invariant disparity (h, w) in [0, 1] of the size that the model sees.

    Means over the pixels bring the image to that size, as in training. Noise is drawn from the same seed every time.
    """
    pixels = sample.image.permute(2, 0, 1)[None].float() / 127.5 - 1
    latent = model.encode(_reduced(pixels, model.multiple).to(model.device))
    annotation = objective.predict(model, latent, "depth", torch.Generator().manual_seed(0))
    return model.decode(annotation)[0].mean(0).cpu()


@torch.no_grad()
def through_vae(model: TrainableLotus2, sample: Sample) -> Tensor:
    """What the decoder makes of the true disparity's latent: no row can be much better."""
    truth = disparity_annotation(sample.depth)[0][None]
    return model.decode(model.encode(_reduced(truth, model.multiple)))[0].mean(0)


def _reduced(picture: Tensor, multiple: int) -> Tensor:
    return F.interpolate(picture, process_size(*picture.shape[2:], LONGER_SIDE, multiple), mode="area")


def _held_out(kind: str, seed: int) -> Sample:
    view = scenes.view(seed, *HELD_OUT_SIZE, kind)
    return Sample(f"{kind} {seed}", view.image, view.depth)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, default=BUNDLED, help="bundle whose VAE is taken (the bundled model)")
    rendered_scenes = Path("out/train/bundled/scenes")
    parser.add_argument(
        "--scenes", type=Path, default=rendered_scenes, help="what is missing of them is rendered (%(default)s)"
    )
    parser.add_argument("--frames", type=Path, help="folder of recorded frames")
    names = [training.name for training in TRAININGS]
    parser.add_argument("--only", nargs="+", default=names, choices=names, help="some of the trainings (all)")
    parser.add_argument("--steps", type=int, default=400, help="of the optimizer; half of them for the sharpener")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row (%(default)s)")
    parser.add_argument("--views", type=int, default=20, help="held out, of each kind of scene (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("out/ablation/work"), help="checkpoints and curves")
    parser.add_argument("--output", type=Path, default=Path("out/ablation"), help="ablation.md, .json, .png")
    parser.add_argument("--quick", action="store_true", help="few and tiny batches: whether it runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
