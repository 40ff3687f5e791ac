"""The ablation of Lotus-2 (arXiv 2512.01030, table III) and two analyses, small: the same scenes, steps and seeds.

    python -m benchmarks.ablation [--analysis table] [--frames FOLDER] [--steps 400] [--seeds 3] [--only clean ...]
                                  [--without-prior] [--quick]

Analyses: `table`; `flows`, by their time-steps and amount of data (figure 6); `diffusions`, noise against clean
prediction, time-steps and detail preserver (Lotus, arXiv 2409.18124).

A small network from nothing, for depth, on rendered scenes of 64 x 48 pixels, behind the VAE of a trained bundle, which
stays as it is, and with the image prior. Each row is measured on held-out scenes of every kind and on recorded frames.
What is trained stays in --work, so that a second run goes on where the first was stopped. With --quick nothing is
learnt.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from benchmarks.ablation_data import EncodedBatches, EncodedGroup, encode_once, given_latents
from benchmarks.ablation_figures import fitted, measure
from benchmarks.ablation_report import save_panel, save_report
from benchmarks.ablation_rows import ANALYSES, Training
from lotus2_ros import scenes
from lotus2_ros.data.annotation import disparity_annotation
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.frames import read_frames
from lotus2_ros.model.image_size import process_size
from lotus2_ros.model.load import BUNDLED
from lotus2_ros.model.lotus2.bundle import load_bundle
from lotus2_ros.model.torch_model import TorchModel
from lotus2_ros.training import loop, rendered
from lotus2_ros.training.config import TrainingConfig, read_config
from lotus2_ros.training.diffusion import Diffusion
from lotus2_ros.training.objectives import Objective

RUNS = Path(__file__).parents[1] / "config/train"
SCENES = Path("out/train/bundled/scenes")
# Of the rendered 256 x 192; of the side of a token.
SIZE, LONGER_SIDE, TOKEN = 0.25, 64, 8
# The networks of the runs are larger.
SMALLER: dict[str, dict[str, Any]] = {
    "bundled.yaml": {"network.heads": 2, "network.double_blocks": 1, "network.single_blocks": 2},
    "lotus_d.yaml": {"network.generative": True, "network.widths": [16, 32], "network.heads": 2, "network.groups": 4},
}
SHARDS = 4  # of 200 views
CEILING = "the truth through the VAE"
HELD_OUT_SIZE = (160, 120)
FIRST_SEED = 300
STARTS = 4  # from other noise


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    views = 1 if args.quick else args.views
    held_out = [_held_out(kind, seed) for kind in scenes.KINDS for seed in range(FIRST_SEED, FIRST_SEED + views)]
    frames = [] if args.frames is None else list(read_frames(args.frames))
    shown = [*held_out[::views], *frames[:1]]
    trainings = [training for training in ANALYSES[args.analysis] if training.name in (args.only or training.name)]
    settings = {"steps": args.steps, "held-out views": len(held_out), "recorded frames": len(frames)}
    configure = partial(configuration, steps=args.steps, quick=args.quick, prior=not args.without_prior)
    bundle = load_bundle(args.vae, device=torch.device("cpu"), dtype=torch.float32)
    data: dict[int, list[EncodedGroup]] = {}  # by the side of a token, the same for all seeds
    accelerator = Accelerator()
    found = {CEILING: [measure(partial(through_vae, bundle), held_out, [])]}
    depths: dict[str, list[Tensor]] = {}
    for seed in range(args.seeds):
        for training in trainings:
            config = configure(training, seed=seed)
            model = build(config, bundle.vae).to(accelerator.device)
            if training.patch not in data:
                data[training.patch] = _load(args.scenes, config, model)
            groups = [group.every(training.every) for group in data[training.patch]]
            # Other budgets have other folders: what is finished is not trained again.
            folder = f"{training.name}-{args.steps}-{seed}" + ("-without-prior" if args.without_prior else "")
            train(accelerator, model, groups, config, args.work / folder)
            for row, stage in zip(training.rows, config.stages, strict=True):
                answers = predict(model, stage.objective, [*held_out, *frames])
                figures = measure(lambda sample, of=answers: of[sample.name], held_out, frames)
                if isinstance(stage.objective, Diffusion):
                    figures |= spread_over_noise(model, stage.objective, held_out[::views])
                found.setdefault(row, []).append(figures)
                if seed == 0:
                    depths[row] = [fitted(answers[sample.name], sample) for sample in shown]
            save_report(args.output, found, settings)
        if seed == 0:
            images, truths = ([getattr(sample, name) for sample in shown] for name in ("image", "depth"))
            save_panel(args.output / "ablation.png", images, truths, depths)
    print((args.output / "ablation.md").read_text())


def train(
    accelerator: Accelerator, model: Any, groups: Sequence[EncodedGroup], config: TrainingConfig, folder: Path
) -> None:
    """All stages of a run; what is in `folder` is not trained again."""
    folder.mkdir(parents=True, exist_ok=True)
    with given_latents(model):
        for number, stage in enumerate(config.stages):
            batches = EncodedBatches(groups, stage.batch, model.vae_factor, hash((config.seed, number)))
            parameters = model.trainable_parameters(stage.objective.part())
            loop.train(accelerator, model, parameters, batches, stage, config, folder, dict)
    model.eval().requires_grad_(False)


def configuration(training: Training, *, seed: int, steps: int, quick: bool, prior: bool = True) -> TrainingConfig:
    """That of the training's run, with a smaller network and these stages: the first of so many steps, those after it
    of half as many."""
    stages = [
        {
            "name": f"stage{number}",
            "objective": objective,
            "steps": max(1, steps // (2 if number else 1)),
            "batch": 2 if quick else 8,
            "learning_rate": 1e-3,
            "warm_up": steps // 10,
        }
        for number, objective in enumerate(training.objectives)
    ]
    changes = SMALLER[training.run] | {
        "seed": seed,
        "tasks": ["depth"],
        "network.process_resolution": LONGER_SIDE,
        "network.prior.hidden": 128,
        "network.prior.channels": 16,
        "data.shards": 1 if quick else SHARDS,
        "stages": stages,
        "report_every": steps,
        "checkpoint_every": steps,
        "panels_every": steps,
    }
    if training.patch != 2:
        changes["network.patch"] = training.patch
    if not prior:
        changes |= {"network.prior": None}
    elif quick:
        changes |= {"network.prior.pretrained": False}
    if quick:
        changes |= {"data.scenes_per_shard": 4, "data.views_per_scene": 1}
    return read_config(RUNS / training.run, [f"{key}={json.dumps(value)}" for key, value in changes.items()])


def build(config: TrainingConfig, vae: torch.nn.Module) -> Any:
    """The untrained network behind a trained VAE; all rows of a seed draw the same weights as far as they have them."""
    torch.manual_seed(config.seed)
    model: Any = config.network.build(config.tasks, config.stages, torch.device("cpu"))
    take_vae(model, vae)
    return model


def take_vae(model: TorchModel, vae: Any) -> None:
    """A copy of the weights of a trained VAE of the same shape, and of what its latents' shift and scale are."""
    model.vae.load_state_dict(vae.state_dict())
    model.vae.scale_latents(shift=vae.config.shift_factor, scale=vae.config.scaling_factor)


@torch.no_grad()
def predict(model: Any, objective: Objective, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Affine-invariant disparities (h, w) in [0, 1] of the size that the model sees, by the names of the samples.

    Means over the pixels bring an image to that size, as in training. Noise is drawn from the same seed every time.
    """
    found: dict[str, Tensor] = {}
    for _, group in groupby(samples, lambda sample: sample.image.shape):
        alike = list(group)
        annotation = objective.predict(model, _encode(model, alike), "depth", torch.Generator().manual_seed(0))
        found |= dict(zip((sample.name for sample in alike), model.decode(annotation).mean(1).cpu(), strict=True))
    return found


@torch.no_grad()
def spread_over_noise(model: Any, objective: Diffusion, samples: Sequence[Sample]) -> dict[str, float]:
    """Standard deviation of the disparity (0 to 1) between starts from other noise, of what the first step and the last
    step of DDIM take for the annotation. The samples have one size."""
    latent = _encode(model, samples)
    starts = [
        list(objective.estimates(model, latent, "depth", torch.Generator().manual_seed(seed))) for seed in range(STARTS)
    ]
    return {
        f"spread over noise, {name} step": float(
            torch.stack([model.decode(start[step]).mean(1) for start in starts]).std(0).mean()
        )
        for name, step in {"first": 0, "last": -1}.items()
    }


def _encode(model: Any, samples: Sequence[Sample]) -> Tensor:
    pixels = torch.stack([sample.image.permute(2, 0, 1) for sample in samples]).float() / 127.5 - 1
    return model.encode(_reduced(pixels, model.multiple).to(model.device))


@torch.no_grad()
def through_vae(model: Any, sample: Sample) -> Tensor:
    """What the decoder makes of the true disparity's latent: no row can be much better."""
    truth = disparity_annotation(sample.depth)[0][None]
    return model.decode(model.encode(_reduced(truth, model.multiple)))[0].mean(0)


def _reduced(picture: Tensor, multiple: int) -> Tensor:
    return F.interpolate(picture, process_size(*picture.shape[2:], LONGER_SIDE, multiple), mode="area")


def _held_out(kind: str, seed: int) -> Sample:
    view = scenes.view(seed, *HELD_OUT_SIZE, kind)
    return Sample(f"{kind} {seed}", view.image, view.depth)


def _load(folder: Path, config: TrainingConfig, model: Any) -> list[EncodedGroup]:
    assert config.data.source == "scenes"
    rendered.render(folder, config.data, os.cpu_count() or 1)
    return [encode_once(model, group, SIZE, TOKEN) for group in rendered.load(folder, config.data)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, default=BUNDLED, help="bundle whose VAE is taken (the bundled model)")
    parser.add_argument("--scenes", type=Path, default=SCENES, help="what is missing of them is rendered (%(default)s)")
    parser.add_argument("--frames", type=Path, help="folder of recorded frames")
    parser.add_argument("--analysis", default="table", choices=list(ANALYSES), help="the rows (%(default)s)")
    names = [training.name for trainings in ANALYSES.values() for training in trainings]
    parser.add_argument("--only", nargs="+", choices=names, help="some of the analysis's trainings (all)")
    parser.add_argument("--without-prior", action="store_true", help="the network alone")
    parser.add_argument("--steps", type=int, default=400, help="of the optimizer; half of them for the sharpener")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row (%(default)s)")
    parser.add_argument("--views", type=int, default=20, help="held out, of each kind of scene (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("out/ablation/work"), help="checkpoints and curves")
    parser.add_argument("--output", type=Path, default=Path("out/ablation"), help="ablation.md, .json, .png")
    parser.add_argument("--quick", action="store_true", help="few and tiny batches: whether it runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
