"""Rendered scenes as training data: rendered to disk once, then held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lotus2_ros import scenes
from lotus2_ros.data.annotation import disparity_annotation, normals_annotation
from lotus2_ros.scenes import assets
from lotus2_ros.training.batches import Group
from lotus2_ros.training.config import Bucket, ScenesConfig

# Stored types: 8 bits for colors and normals (steps of half a degree), 16 bits for disparity.
_DTYPES = {"image": np.uint8, "depth": np.int16, "normals": np.int8}
_SCALES = {"image": 127.5, "depth": 32767.0, "normals": 127.0}


@dataclass(frozen=True)
class RenderedGroup:
    """Views of one size; `fields`: (N, C, H, W) integers, see `quantize`; `shift`: (N,) of their disparity."""

    weight: float
    fields: dict[str, Tensor]
    shift: Tensor

    def __len__(self) -> int:
        return len(self.fields["image"])

    def read(self, indices: Sequence[int], task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        image, annotation = (dequantize(self.fields[field][list(indices)], field) for field in ("image", task))
        valid = torch.ones(len(image), 1, *image.shape[2:], dtype=torch.bool)
        return image, annotation, valid, self.shift[list(indices)]


def render(folder: Path, config: ScenesConfig, workers: int) -> None:
    """Render the missing shards."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in range(config.shards) if not _shard_path(folder, shard).exists()]
    if not missing:
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done, _ in enumerate(pool.map(partial(_render_shard, folder, config), missing)):
            print(f"rendered shard {config.shards - len(missing) + done + 1} of {config.shards}", flush=True)


def load(folder: Path, config: ScenesConfig) -> list[Group]:
    """All views in memory: a group for each image size, weighted by its number of views."""
    parts: dict[str, list[np.ndarray]] = {}
    for shard in range(config.shards):
        with np.load(_shard_path(folder, shard), allow_pickle=False) as arrays:
            for name, values in arrays.items():
                parts.setdefault(name, []).append(values)
    groups: list[Group] = []
    for bucket in config.buckets:  # buckets of one size share the first one's arrays
        names = {field: _array_name(field, bucket) for field in _DTYPES}
        if names["image"] in parts:
            fields = {field: torch.from_numpy(np.concatenate(parts.pop(name))) for field, name in names.items()}
            shift = torch.from_numpy(np.concatenate(parts.pop(_array_name("shift", bucket))))
            groups.append(RenderedGroup(float(len(shift)), fields, shift))
    return groups


def quantize(values: Tensor, field: str) -> np.ndarray:
    """float32 in [-1, 1] to the stored integers."""
    shifted = values + 1 if field == "image" else values
    return (shifted * _SCALES[field]).round().numpy().astype(_DTYPES[field])


def dequantize(values: Tensor, field: str) -> Tensor:
    """Stored integers to float32 in [-1, 1]; the depth has one channel on disk and three here."""
    scaled = values.float() / _SCALES[field] - (1.0 if field == "image" else 0.0)
    return scaled.expand(-1, 3, -1, -1) if field == "depth" else scaled


def _render_shard(folder: Path, config: ScenesConfig, shard: int) -> None:
    arrays: dict[str, list[np.ndarray]] = {}
    shares = np.array([bucket.share for bucket in config.buckets])
    from_assets = None if config.assets is None or shard < config.plain_shards else assets.load(config.assets)
    for scene in range(config.scenes_per_shard):
        seed = scenes.TRAINING_SEEDS + shard * config.scenes_per_shard + scene
        rng = np.random.default_rng([seed, 5])
        bucket = config.buckets[rng.choice(len(shares), p=shares / shares.sum())]
        views = scenes.views(
            seed, bucket.width, bucket.height, bucket.kind, close_up=bucket.close_up, assets=from_assets
        )
        for view in islice(views, config.views_per_scene):
            depth, _, shift = disparity_annotation(view.depth)
            annotations = {
                "image": view.image.permute(2, 0, 1) / 127.5 - 1,
                "depth": depth[:1],
                "normals": normals_annotation(view.normals)[0],
            }
            stored = {field: quantize(values, field) for field, values in annotations.items()}
            for field, values in (stored | {"shift": shift.numpy()}).items():
                arrays.setdefault(_array_name(field, bucket), []).append(values)
    path = _shard_path(folder, shard)
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, allow_pickle=False, **{name: np.stack(values) for name, values in arrays.items()})
    unfinished.replace(path)


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:04d}.npz"


def _array_name(field: str, bucket: Bucket) -> str:
    return f"{field}_{bucket.height}x{bucket.width}"
