"""Lotus-2 as a model family."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from lotus2_ros.model.family import Family, LoadOptions
from lotus2_ros.model.lotus2 import FUSED_FORMAT, NAME, TRAINABLE_FORMAT

if TYPE_CHECKING:
    from lotus2_ros.model.manifest import Header
    from lotus2_ros.model.torch_model import InferenceModel
    from lotus2_ros.model.trainable import NetworkConfig

log = logging.getLogger(__name__)


class Lotus2Family(Family):
    formats: ClassVar = {NAME: (TRAINABLE_FORMAT, FUSED_FORMAT)}
    layout = "transformer/, vae/, ..., lotus-2_*.safetensors"
    without_bfloat16 = torch.float32  # activations of FLUX overflow float16

    def load_bundle(self, folder: Path, header: Header, options: LoadOptions) -> InferenceModel:
        """A model in format 1 is fused on the way."""
        from lotus2_ros.model.lotus2.bundle import load_fused_bundle, open_bundle

        if header.format == FUSED_FORMAT:
            return load_fused_bundle(
                folder,
                device=options.device,
                dtype=options.dtype,
                tasks=options.tasks,
                timestep_dtype=options.timestep_dtype,
            )
        from lotus2_ros.model.lotus2.fuse import fuse
        from lotus2_ros.model.manifest import MANIFEST
        from lotus2_ros.model.weights import CheckpointError

        source = open_bundle(folder, tasks=options.tasks, timestep_dtype=options.timestep_dtype)
        try:
            return fuse(source, "float32", device=options.device, dtype=options.dtype)
        except ValueError as error:  # config and weights fit together, but no fused model comes of them
            raise CheckpointError(f"{folder / MANIFEST}: {error}") from None

    def is_released(self, folder: Path) -> bool:
        diffusers = (folder / "transformer").is_dir() and (folder / "vae").is_dir()
        return diffusers or ((folder / "flux1-dev.safetensors").is_file() and (folder / "text_encoder_2").is_dir())

    def load_released(self, folder: Path, options: LoadOptions) -> InferenceModel:
        """Fused on the way, in the compute dtype."""
        from lotus2_ros.model.lotus2.fuse import fuse
        from lotus2_ros.model.lotus2.released import open_released
        from lotus2_ros.model.memory import memory_errors

        prepare = f"lotus2 prepare --flux {folder} --lotus2 {folder} --output BUNDLE"
        log.warning("%s: released files are fused at every start, which takes minutes; once: %s", folder, prepare)
        with memory_errors(f"make a smaller model of it: {prepare} --precision nf4"):
            source = open_released(
                folder, folder, tasks=options.tasks, timestep_dtype=options.timestep_dtype, device=options.device
            )
            return fuse(source, "float32", device=options.device, dtype=options.dtype)

    def networks(self) -> tuple[type[NetworkConfig], ...]:
        from lotus2_ros.model.lotus2.networks import FluxNetwork, ScratchNetwork

        return ScratchNetwork, FluxNetwork
