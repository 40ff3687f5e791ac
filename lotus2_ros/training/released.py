"""The real network of a training run: FLUX.1-dev, frozen, with what Lotus-2 adds to it."""

from __future__ import annotations

import torch

from lotus2_ros.model.layers.precision import dtype_named
from lotus2_ros.model.lotus2.base import CORE, SHARPENER
from lotus2_ros.model.lotus2.continuity import LocalContinuity
from lotus2_ros.model.lotus2.released import EMBEDDINGS, load_adapters, open_flux
from lotus2_ros.model.lotus2.trainable import TrainableLotus2, is_base
from lotus2_ros.model.weights import assign_weights, stored_state
from lotus2_ros.training.config import ReleasedConfig, StageConfig, Task


def build(
    network: ReleasedConfig, tasks: tuple[Task, ...], stages: tuple[StageConfig, ...], device: torch.device
) -> TrainableLotus2:
    """The base in `base_dtype`; adapters and continuity modules in float32, from `lotus2` or untrained.

    The empty prompt is embedded once, so that the text encoders are gone before the rest is read. Raises
    CheckpointError that names file and key.
    """
    source = open_flux(network.flux, tasks=tasks, device=device)
    model = source.model
    state = dict(zip(EMBEDDINGS, source.embed_prompt(), strict=True))
    for task in tasks:
        untrained = LocalContinuity(model.vae.config.latent_channels).state_dict()
        state |= {f"continuity.{task}.{key}": tensor for key, tensor in untrained.items()}
    state |= {name: source.read(name) for name in stored_state(model) if name not in state}
    base = dtype_named(network.base_dtype)
    assign_weights(model, state, device, lambda name: base if is_base(name) else torch.float32)
    sharpened = any(stage.objective.part() == "sharpener" for stage in stages)
    for task in tasks:
        for stage in (CORE, SHARPENER) if sharpened else (CORE,):
            model.add_adapter(stage, task, network.ranks[task])
    for name, parameter in model.named_parameters():
        if not is_base(name):  # PEFT makes them in the base's dtype, in which small steps would be lost
            parameter.data = parameter.data.float()
    if network.lotus2 is not None:
        load_adapters(model, network.lotus2)
    return model
