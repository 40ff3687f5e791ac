"""The weights of one component, a diffusers or transformers folder: one file, or shards and their index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lotus2_ros.model.bundle import read_json
from lotus2_ros.model.weights import CheckpointError, WeightFile, check_keys


def weight_file(component: Path, stem: str = "diffusion_pytorch_model") -> Path:
    """The one file, or the index of the shards."""
    index = component / f"{stem}.safetensors.index.json"
    return index if index.is_file() else component / f"{stem}.safetensors"


def open_weights(file: Path) -> Mapping[str, WeightFile]:
    """In which file each tensor is. Raises CheckpointError unless all are complete and just what an index says."""
    if file.suffix != ".json":
        whole = WeightFile(file)
        return dict.fromkeys(whole.header, whole)
    listed = read_json(file).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointError(f"{file}: expected a weight_map from keys to files")
    shards = {name: WeightFile(file.parent / name) for name in sorted(set(listed.values()))}
    for name, shard in shards.items():
        check_keys(shard.path, shard.header, [key for key, home in listed.items() if home == name])
    return {key: shards[name] for key, name in listed.items()}
