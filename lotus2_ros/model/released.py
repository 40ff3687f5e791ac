"""The released layout: FLUX.1-dev as a diffusers folder, with the six `lotus-2_*` files beside its subfolders."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor

from lotus2_ros.model.bundle import choose_tasks, plain_config, read_json
from lotus2_ros.model.lotus2 import CORE, SHARPENER, Lotus2
from lotus2_ros.model.prompt import embed_empty_prompt
from lotus2_ros.model.weights import CheckpointError, assign_weights, check_weights, read_weights, stored_state

# Our names of tasks and modules -> those in the file names.
FILE_NAMES = {"depth": "depth", "normals": "normal", "continuity": "lcm", CORE: CORE, SHARPENER: SHARPENER}
TASKS = ("depth", "normals")
# What the released model was trained for and with; its files do not tell.
PROCESS_RESOLUTION = 1024
CONDITIONING = "bfloat16"
SHARPENER_TRAIN_TIMESTEPS = 10


def load_released(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None = None,
    conditioning: str | None = None,
) -> Lotus2:
    """The released model, its adapters side by side on one base, ready to run."""
    tasks = choose_tasks(TASKS, tasks, folder)
    scheduler_file = folder / "scheduler" / "scheduler_config.json"
    scheduler_config = plain_config(read_json(scheduler_file)) | {"num_train_timesteps": SHARPENER_TRAIN_TIMESTEPS}
    scheduler = _build(FlowMatchEulerDiscreteScheduler, scheduler_config, scheduler_file)
    files = {lotus2_file(folder, stage, task) for stage in (CORE, SHARPENER, "continuity") for task in tasks}
    weights = {file: read_weights(file) for file in sorted(files)}
    weights |= {file: _read_shards(file) for file in (weight_file(folder / "vae"), weight_file(folder / "transformer"))}
    prompt_embeds, pooled = embed_empty_prompt(folder, device=device, dtype=dtype)
    with torch.device("meta"):
        model = Lotus2(
            _component(AutoencoderKL, folder / "vae"),
            _component(FluxTransformer2DModel, folder / "transformer"),
            scheduler,
            tasks=tasks,
            prompt_embeds=prompt_embeds,
            pooled=pooled,
            process_resolution=PROCESS_RESOLUTION,
            conditioning=conditioning or CONDITIONING,
            metadata={"name": folder.resolve().name},
        )
        for task in tasks:
            for stage in (CORE, SHARPENER):
                file = lotus2_file(folder, stage, task)
                model.add_adapter(stage, task, adapter_rank(file, weights[file]))
    state = {"conditioner.prompt_embeds": prompt_embeds, "conditioner.pooled": pooled}
    expected: dict[Path, dict[str, str]] = defaultdict(dict)
    for name in stored_state(model).keys() - state.keys():
        file, key = locate(folder, name)
        expected[file][key] = name
    shapes = stored_state(model)
    for file, names in expected.items():
        check_weights(file, weights[file], {key: shapes[name] for key, name in names.items()})
        state |= {name: weights[file][key] for key, name in names.items()}
    assign_weights(model, state, device, model.dtype_of(dtype))
    return model.eval().requires_grad_(False)


def lotus2_file(folder: Path, part: str, task: str) -> Path:
    return folder / f"lotus-2_{FILE_NAMES[part]}_{FILE_NAMES[task]}.safetensors"


def locate(folder: Path, name: str) -> tuple[Path, str]:
    """In which file, and under which key there, a parameter is released."""
    if match := re.fullmatch(r"continuity\.(\w+)\.layers\.(.+)", name):
        return lotus2_file(folder, "continuity", match[1]), f"lcm.{match[2]}"
    if match := re.fullmatch(rf"(.+\.lora_[AB])\.({CORE}|{SHARPENER})_(\w+)(\.weight)", name):
        return lotus2_file(folder, match[2], match[3]), match[1] + match[4]
    component, key = name.split(".", 1)
    return weight_file(folder / component), key


def weight_file(component: Path) -> Path:
    """A diffusers component's weights, or the index of its shards."""
    index = component / "diffusion_pytorch_model.safetensors.index.json"
    return index if index.is_file() else component / "diffusion_pytorch_model.safetensors"


def adapter_rank(file: Path, tensors: dict[str, Tensor]) -> int:
    """The rank of a LoRA file; its alpha is the same number and is not stored."""
    ranks = {tensor.shape[0] for key, tensor in tensors.items() if key.endswith(".lora_A.weight")}
    if len(ranks) != 1:
        raise CheckpointError(f"{file}: expected LoRA weights of one rank, got ranks {sorted(ranks)}")
    return ranks.pop()


def _read_shards(file: Path) -> dict[str, Tensor]:
    if file.suffix != ".json":
        return read_weights(file)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(read_json(file).get("weight_map", {}).values())):
        tensors |= read_weights(file.parent / shard)
    return tensors


def _component(kind: Callable[..., Any], folder: Path) -> Any:
    file = folder / "config.json"
    return _build(kind, plain_config(read_json(file)), file)


def _build(kind: Callable[..., Any], config: dict[str, Any], file: Path) -> Any:
    try:
        return kind(**config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: {error}") from None
