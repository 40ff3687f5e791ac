"""`lotus2 train`: render scenes, train VAE, core predictor and sharpener, write a bundle."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from lotus2_ros.model.bundle import save_bundle
from lotus2_ros.training import data, stages
from lotus2_ros.training.config import TrainingConfig

STAGES = ("vae", "core_small", "core", "sharpener")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = TrainingConfig()
    parser.add_argument("--output", type=Path, required=True, help="folder of the bundle")
    parser.add_argument(
        "--work", type=Path, default=Path("out/train"), help="rendered scenes, checkpoints (%(default)s)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that render (%(default)s)")
    views = defaults.data.scenes_per_shard * defaults.data.views_per_scene
    parser.add_argument("--shards", type=int, default=defaults.data.shards, help=f"of {views} views each (%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of weights and batches (%(default)s)")
    for stage in STAGES:
        steps = getattr(defaults, stage).steps
        parser.add_argument(f"--{stage.replace('_', '-')}-steps", type=int, default=steps, help="(%(default)s)")


def run(args: argparse.Namespace) -> int:
    config = configure(args)
    started = time.monotonic()
    train(config, args.work, args.output, args.workers)
    print(f"{args.output}: written after {(time.monotonic() - started) / 60:.0f} minutes")
    return 0


def configure(args: argparse.Namespace) -> TrainingConfig:
    """The defaults with what the command line changes."""
    if args.shards < 1:
        raise ValueError(f"expected at least one shard, got {args.shards}")
    config = TrainingConfig(seed=args.seed)
    steps = {stage: getattr(args, f"{stage}_steps") for stage in STAGES}
    changed = {stage: replace(getattr(config, stage), steps=count) for stage, count in steps.items()}
    return replace(config, data=replace(config.data, shards=args.shards), **changed)


def train(config: TrainingConfig, work: Path, output: Path, workers: int) -> None:
    """The whole way; goes on where an earlier run in `work` was interrupted."""
    data.render(work / "scenes", config.data, workers)
    views = data.load(work / "scenes", config.data)
    torch.manual_seed(config.seed)
    model = stages.build(config.network)
    stages.train_vae(model, views, config, work)
    stages.train_core(model, views, config, work)
    stages.train_sharpener(model, views, config, work)
    metadata = {"name": "lotus2-small", "licence": "Apache-2.0", "card": "README.md"}
    save_bundle(model, output, metadata=metadata, dtype=torch.float16)
