"""The training set: scenes rendered once to disk, as what the model is to see and to say."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lotus2_ros import scenes
from lotus2_ros.geometry.normals import MODEL_TO_OPTICAL
from lotus2_ros.training.config import DataConfig

Bucket = tuple[int, int]
FIELDS = ("image", "depth", "normals")
_DTYPES = {"image": np.uint8, "depth": np.int16, "normals": np.int8}
_SCALES = {"image": 127.5, "depth": 32767.0, "normals": 127.0}


def disparity_target(depth: Tensor) -> Tensor:
    """Depth (H, W), +Inf in the sky, to the depth task's annotation (3, H, W) in [-1, 1].

    1/depth, its 2 % and 98 % quantiles to -1 and 1, three times the same (facts of arXiv 2512.01030).
    """
    disparity = torch.where(torch.isfinite(depth), 1 / depth, 0.0)
    low, high = torch.quantile(disparity.flatten(), torch.tensor([0.02, 0.98]))
    scaled = (disparity - low) / (high - low).clamp_min(1e-6) * 2 - 1
    return scaled.clamp(-1, 1).expand(3, *depth.shape)


def normals_target(normals: Tensor) -> Tensor:
    """Normals (H, W, 3) in the optical frame to the annotation (3, H, W) in the model's; the sky faces the camera."""
    toward = torch.tensor([0.0, 0.0, -1.0])
    return (MODEL_TO_OPTICAL * torch.where(torch.isfinite(normals), normals, toward)).permute(2, 0, 1)


def render(folder: Path, config: DataConfig, workers: int) -> None:
    """Write the shards that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in range(config.shards) if not _shard_path(folder, shard).exists()]
    if not missing:
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done, _ in enumerate(pool.map(partial(_render_shard, folder, config), missing)):
            print(f"rendered shard {config.shards - len(missing) + done + 1} of {config.shards}", flush=True)


def load(folder: Path, config: DataConfig) -> dict[Bucket, dict[str, Tensor]]:
    """Everything in memory: for each bucket (N, 3, H, W) integers; `dequantize` gives [-1, 1]."""
    shards = [np.load(_shard_path(folder, shard)) for shard in range(config.shards)]
    loaded: dict[Bucket, dict[str, Tensor]] = {}
    for bucket in config.buckets:
        names = {field: _array_name(field, bucket) for field in FIELDS}
        arrays = {
            field: np.concatenate([shard[name] for shard in shards if name in shard]) for field, name in names.items()
        }
        loaded[bucket] = {field: torch.from_numpy(array) for field, array in arrays.items()}
    return loaded


def dequantize(values: Tensor, field: str) -> Tensor:
    """Stored integers to float32 in [-1, 1]; the depth has one channel on disk and three here."""
    scaled = values.float() / _SCALES[field] - (1.0 if field == "image" else 0.0)
    return scaled.expand(-1, 3, -1, -1) if field == "depth" else scaled


def mirror(values: Tensor, field: str) -> Tensor:
    """(B, 3, H, W) flipped left to right; a normal's x changes its sign."""
    flipped = values.flip(-1)
    return flipped * torch.tensor([-1.0, 1, 1])[:, None, None] if field == "normals" else flipped


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1] with other brightness, contrast, white balance, saturation and noise."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(len(images), channels, 1, 1, generator=generator)

    values = (images * 0.5 + 0.5).clamp_min(1e-3) ** draw(0.6, 1.5) * draw(0.7, 1.15) * draw(0.88, 1.12, 3)
    grey = values.mean(1, keepdim=True)
    values = torch.lerp(grey, values, draw(0.2, 1.2)) + draw(0, 0.02) * torch.randn(values.shape, generator=generator)
    return values.clamp(0, 1) * 2 - 1


def _quantize(values: Tensor, field: str) -> np.ndarray:
    shifted = values + 1 if field == "image" else values
    return (shifted * _SCALES[field]).round().numpy().astype(_DTYPES[field])


def _render_shard(folder: Path, config: DataConfig, shard: int) -> None:
    arrays: dict[str, list[np.ndarray]] = {}
    for scene in range(config.scenes_per_shard):
        seed = scenes.TRAINING_SEEDS + shard * config.scenes_per_shard + scene
        rng = np.random.default_rng([seed, 5])
        bucket = config.buckets[rng.choice(len(config.buckets), p=config.shares)]
        kind = "street" if bucket == config.buckets[-1] else None
        for view in islice(scenes.views(seed, bucket[1], bucket[0], kind), config.views_per_scene):
            annotations = {
                "image": view.image.permute(2, 0, 1) / 127.5 - 1,
                "depth": disparity_target(view.depth)[:1],
                "normals": normals_target(view.normals),
            }
            for field, values in annotations.items():
                arrays.setdefault(_array_name(field, bucket), []).append(_quantize(values, field))
    path = _shard_path(folder, shard)
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, allow_pickle=False, **{name: np.stack(values) for name, values in arrays.items()})
    unfinished.replace(path)


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:04d}.npz"


def _array_name(field: str, bucket: Bucket) -> str:
    return f"{field}_{bucket[0]}x{bucket[1]}"
