"""Lotus-2, Lotus-D and Lotus-G beside each other, small: the same scenes, images, steps, prior and VAE for each.

    python -m benchmarks.families [--frames FOLDER] [--only lotus-d ...] [--stages core_small core] [--steps 1100 2400]
                                  [--size 0.25] [--shards 8] [--vae FOLDER] [--quick]

Each is trained from nothing for depth and normals by --stages of its own run in config/train and measured at the size
of the last on held-out scenes of every kind and on recorded frames. What is trained stays in --work: a second run goes
on where the first was stopped. All begin with the VAE of one bundle. With --quick nothing is learnt.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.ablation import RUNS, SCENES, take_vae
from benchmarks.timing import interleaved_ms, machine, markdown
from lotus2_ros import scenes
from lotus2_ros.config import Config
from lotus2_ros.evaluation.records import Key
from lotus2_ros.evaluation.sets import EvaluationSet, frame_sets, scene_sets
from lotus2_ros.evaluation.summary import figures, summarize
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.load import BUNDLED
from lotus2_ros.model.lotus2.bundle import load_bundle
from lotus2_ros.training import rendered
from lotus2_ros.training.config import TrainingConfig, read_config
from lotus2_ros.training.run import run_stages

# On images of half the size, and of three quarters of it with the decoder.
STAGES = ("core_small", "core")
_G = ("network.generative=true",)
_PLAIN = tuple(f"stages.{stage}.objective.reconstruction=false" for stage in STAGES)
# A Lotus-2 with as many parameters as two U-Nets, which processes images as they do.
_LIKE_THE_OTHERS = ("network.single_blocks=4", "network.process_by_area=false", "network.guided=false")
# File of the run and changes of it.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "lotus-2": ("bundled.yaml", _LIKE_THE_OTHERS),
    "lotus-d": ("lotus_d.yaml", ()),
    "lotus-d without detail preserver": ("lotus_d.yaml", _PLAIN),
    "lotus-g": ("lotus_d.yaml", _G),
    "lotus-g without detail preserver": ("lotus_d.yaml", _G + _PLAIN),
}
ROUNDS = 20
COLUMNS = {
    "AbsRel / row": "held-out scenes, AbsRel / row",
    "things, AbsRel / row": "held-out views of things, AbsRel / row",
    "normals, degrees": "held-out scenes, normals, degrees",
    "boundary F1": "held-out scenes, boundary F1",
    "frames, AbsRel / row": "recorded frames, geometric mean of AbsRel / row",
    "AUSE": "held-out scenes, AUSE of the uncertainty",
    "of a random order": "held-out scenes, AUSE of a random order",
}


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    budget = {name: getattr(args, name) for name in ("stages", "steps", "size", "shards", "quick")}
    configs = {name: configuration(*FAMILIES[name], **budget) for name in args.only}
    data = next(iter(configs.values())).data  # the same for all
    assert data.source == "scenes"
    rendered.render(args.scenes, data, os.cpu_count() or 1)
    groups = rendered.load(args.scenes, data)
    accelerator = Accelerator()
    vae = load_bundle(args.vae, device=torch.device("cpu"), dtype=torch.float32).vae
    estimators: dict[str, Estimator] = {}
    for name, config in configs.items():
        model = build(config, vae).to(accelerator.device)
        # Other budgets have other folders: what is finished is not trained again.
        trained = (f"{stage.name}-{stage.steps}-{stage.size}" for stage in config.stages)
        run_stages(accelerator, model, groups, config, args.work / "-".join((*name.split(), *trained)))
        estimators[name] = Estimator(model, Config(), round(data.buckets[0].width * config.stages[-1].size))
    rows = {name: measure(each, args.views, args.frames) for name, each in estimators.items()}
    image = torch.randint(0, 256, (480, 640, 3), dtype=torch.uint8)
    times = interleaved_ms({name: partial(_frame, each, image) for name, each in estimators.items()}, ROUNDS)
    for name, each in estimators.items():
        rows[name] |= {"ms": times[name], "million parameters": sum(p.numel() for p in each.model.parameters()) / 1e6}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "families.json").write_text(json.dumps(rows, indent=1))
    table = markdown(("", *next(iter(rows.values()))), [_row(name, row) for name, row in rows.items()])
    stages = next(iter(configs.values())).stages
    told = ", ".join(f"{stage.steps} steps of {stage.name}" for stage in stages)
    print(f"{machine(accelerator.device)}, one thread, {told}, {args.views} views of each kind\n\n{table}")


def configuration(
    file: str,
    changes: Sequence[str],
    stages: Sequence[str],
    steps: Sequence[int] | None = None,
    size: float | None = None,
    shards: int | None = None,
    *,
    quick: bool,
) -> TrainingConfig:
    """`stages` of a run of so many `steps`, by default as many as that of the bundled model, on images of `size`, by
    default the stage's own, and of the first `shards` of the data, by default all."""
    usual = {stage.name: stage.steps for stage in read_config(RUNS / "bundled.yaml", []).stages}
    counts = zip(stages, steps or [usual[stage] for stage in stages], strict=True)
    changes = (*changes, *(f"stages.{stage}.steps={count}" for stage, count in counts))
    if size is not None:
        changes = (*changes, *(f"stages.{stage}.size={size}" for stage in stages))
    if shards is not None:
        changes = (*changes, f"data.shards={shards}")
    few = ("data.shards=1", "data.scenes_per_shard=4", "data.views_per_scene=1", "network.prior.pretrained=false")
    config = read_config(RUNS / file, [*changes, *(few if quick else ())])
    chosen = tuple(stage for stage in config.stages if stage.name in stages)
    if quick:
        chosen = tuple(stage.model_copy(update={"steps": 2, "batch": 2, "warm_up": 1}) for stage in chosen)
    return config.model_copy(update={"stages": chosen})


def build(config: TrainingConfig, vae: Any) -> Any:
    """The untrained network with a copy of the trained VAE, whose decoder it may train further."""
    torch.manual_seed(config.seed)
    model: Any = config.network.build(config.tasks, config.stages, torch.device("cpu"))
    if getattr(model, "generative", False):
        model.samples = Config().model.samples
    take_vae(model, vae)
    return model


@torch.inference_mode()
def measure(estimator: Estimator, views: int, frames: Path | None) -> dict[str, float | None]:
    """COLUMNS of a model; None of what it has not."""
    sets: list[EvaluationSet] = scene_sets(estimator, scenes.HELD_OUT_SEEDS, views)
    sets += frame_sets([frames]) if frames else []
    places: list[tuple[EvaluationSet, Key]] = [
        (p, (p.group, p.name, index)) for p in sets for index in range(len(p.samples))
    ]
    records = {key: part.run(estimator, part.samples[key[2]], 0)[0] for part, key in places}
    found = figures(summarize(sets, records, Path()))
    return {column: found.get(figure) for column, figure in COLUMNS.items()}


def _row(name: str, values: Mapping[str, float | None]) -> list[object]:
    return [name, *(None if value is None else f"{value:.3g}" for value in values.values())]


def _frame(estimator: Estimator, image: torch.Tensor) -> object:
    geometry = estimator.predict(image)
    return geometry.depth, geometry.normals


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(FAMILIES)
    parser.add_argument("--only", nargs="+", default=names, choices=names, help="some of the models (all)")
    parser.add_argument("--frames", type=Path, help="folder of recorded frames")
    parser.add_argument("--stages", nargs="+", default=STAGES[:1], choices=STAGES, help="in their order (%(default)s)")
    parser.add_argument("--steps", nargs="+", type=int, help="of each of them (those of the bundled model)")
    parser.add_argument("--size", type=float, help="of the images, of the rendered ones' (the stages' own)")
    parser.add_argument("--shards", type=int, help="of the data, 200 views each (all of the run)")
    parser.add_argument("--views", type=int, default=20, help="held out, of each kind of scene (%(default)s)")
    parser.add_argument("--scenes", type=Path, default=SCENES, help="what is missing of them is rendered (%(default)s)")
    parser.add_argument("--vae", type=Path, default=BUNDLED, help="bundle whose VAE is taken (the bundled model)")
    parser.add_argument("--work", type=Path, default=Path("out/families/work"), help="checkpoints and curves")
    parser.add_argument("--output", type=Path, default=Path("out/families"), help="families.json")
    parser.add_argument("--quick", action="store_true", help="few and tiny batches: whether it runs")
    args = parser.parse_args()
    if args.steps and len(args.steps) != len(args.stages):
        parser.error(f"--steps: expected a number for each of {', '.join(args.stages)}, got {len(args.steps)}")
    return args


if __name__ == "__main__":
    main()
