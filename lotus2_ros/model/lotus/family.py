"""Lotus-D and Lotus-G as a model family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from lotus2_ros.model.family import Family, LoadOptions
from lotus2_ros.model.lotus import FORMAT

if TYPE_CHECKING:
    from lotus2_ros.model.manifest import Header
    from lotus2_ros.model.torch_model import InferenceModel
    from lotus2_ros.model.trainable import NetworkConfig


class LotusFamily(Family):
    formats: ClassVar = {"lotus-d": (FORMAT,), "lotus-g": (FORMAT,)}
    layout = "unet/, vae/, ... of Lotus-D or Lotus-G"
    without_bfloat16 = torch.float16  # in which Lotus was trained

    def load_bundle(self, folder: Path, header: Header, options: LoadOptions) -> InferenceModel:
        from lotus2_ros.model.lotus.bundle import load_bundle

        return load_bundle(
            folder,
            device=options.device,
            dtype=options.dtype,
            tasks=options.tasks,
            samples=options.samples,
            seed=options.seed,
        )

    def is_released(self, folder: Path) -> bool:
        return (folder / "unet").is_dir() and (folder / "vae").is_dir()

    def load_released(self, folder: Path, options: LoadOptions) -> InferenceModel:
        from lotus2_ros.model.lotus.bundle import ready
        from lotus2_ros.model.lotus.released import open_pipelines, predicted_by
        from lotus2_ros.model.manifest import choose_tasks

        task, predicts = predicted_by(folder)
        chosen = choose_tasks((task,), options.tasks, folder)
        model, state = open_pipelines(
            dict.fromkeys(chosen, folder), predicts=predicts, samples=options.samples, seed=options.seed
        )
        return ready(model, state, options.device, options.dtype)

    def networks(self) -> tuple[type[NetworkConfig], ...]:
        from lotus2_ros.model.lotus.networks import UnetNetwork

        return (UnetNetwork,)
