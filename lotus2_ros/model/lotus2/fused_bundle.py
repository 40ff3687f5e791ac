"""A fused bundle, as `lotus2 prepare` writes it: `bundle.json` and a safetensors file for each part of the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.model.lotus2.base import CORE, SHARPENER, adapter_name
from lotus2_ros.model.lotus2.bundle import FAMILY
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.lotus2.lora import FusedPlan, LoraSpec, as_targets
from lotus2_ros.model.manifest import MANIFEST, METADATA, check_metadata, choose_tasks, naming
from lotus2_ros.model.weights import CheckpointError, assign_weights, check_weights, read_weights

FORMAT = 2


def describe(
    model: FusedLotus2, *, metadata: Mapping[str, Any], dtype: torch.dtype, errors: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of a fused model whose unquantised tensors are stored in `dtype`.

    metadata: as for `save_bundle`; errors: what the precision costs, measured against float32.
    """
    check_metadata(metadata)
    plan = model.plan
    return {
        "format": FORMAT,
        "family": FAMILY,
        **{key: metadata[key] for key in METADATA if key in metadata},
        "tasks": list(plan.tasks),
        "stages": {task: [CORE] + ([SHARPENER] if model.has_sharpener(task) else []) for task in plan.tasks},
        "dtype": str(dtype).removeprefix("torch."),
        "precision": plan.precision,
        "errors": dict(errors),
        "conditioning": model.conditioning,
        "process_resolution": model.process_resolution,
        "process_by_area": model.process_by_area,
        "antialias": model.antialias,
        "sharpener_steps": model.sharpener_steps,
        "sharpens": model.sharpens,
        "prompt_tokens": model.transformer.prompt.shape[1],
        "base": plan.base,
        "adapters": {
            name: {"rank": adapter.rank, "scale": adapter.scale, "targets": adapter.targets}
            for name, adapter in sorted(plan.adapters.items())
        },
        "timesteps": list(plan.timesteps),
        "components": model.configs,
    }


def part_of(name: str) -> str:
    """The part of the network that a parameter is stored with."""
    component, kind, index = (*name.split("."), "", "")[:3]
    if component == "transformer" and kind in ("double_blocks", "single_blocks"):
        return f"{kind}.{index}"
    return "vae" if component == "vae" else "ends"


def part_file(folder: Path, part: str) -> Path:
    return folder / f"{part}.safetensors"


def load_fused_bundle(
    folder: Path,
    manifest: Mapping[str, Any],
    *,
    device: torch.device,
    dtype: torch.dtype,
    tasks: Sequence[str] | None = None,
    conditioning: str | None = None,
) -> FusedLotus2:
    """The bundle's model, ready to run: `tasks` a part of the bundle's, `conditioning` the one it was prepared for."""
    with naming(folder / MANIFEST):
        made_for = manifest["conditioning"]
        if conditioning not in (None, made_for):
            raise CheckpointError(
                f"{folder}: prepared for conditioning {made_for}, got {conditioning}; prepare it with that one"
            )
        wanted = choose_tasks(manifest["tasks"], tasks, folder)
        model = _build(manifest, wanted)
    expected: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in model.state_dict().items():
        expected[part_of(name)][name] = tensor
    left_out = [task for task in manifest["tasks"] if task not in wanted]
    state: dict[str, Tensor] = {}
    for part, shapes in expected.items():
        file = part_file(folder, part)
        tensors = {name: tensor for name, tensor in read_weights(file).items() if not _belongs_to(name, left_out)}
        check_weights(file, tensors, shapes)
        state |= tensors
    assign_weights(model, state, device, model.dtype_of(dtype))
    return model.eval().requires_grad_(False)


def _build(manifest: Mapping[str, Any], tasks: tuple[str, ...]) -> FusedLotus2:
    adapters = {
        name: LoraSpec(adapter["rank"], adapter["scale"], as_targets(adapter["targets"]))
        for name, adapter in manifest["adapters"].items()
    }
    degrees, rank = manifest["timesteps"]
    plan = FusedPlan(tasks, manifest["base"], adapters, manifest["precision"], (degrees, rank))
    with torch.device("meta"):
        return FusedLotus2(
            manifest["components"],
            plan,
            prompt_tokens=manifest["prompt_tokens"],
            process_resolution=manifest["process_resolution"],
            process_by_area=manifest.get("process_by_area", False),
            antialias=manifest["antialias"],
            sharpener_steps=manifest["sharpener_steps"],
            sharpens=manifest.get("sharpens", True),
            conditioning=manifest["conditioning"],
            metadata={key: manifest[key] for key in METADATA if key in manifest},
        )


def _belongs_to(name: str, tasks: Sequence[str]) -> bool:
    """Whether a tensor is only for tasks that are not loaded."""
    return any(
        name.startswith(f"continuity.{task}.")
        or any(f".changes.{adapter_name(stage, task)}." in name for stage in (CORE, SHARPENER))
        for task in tasks
    )
