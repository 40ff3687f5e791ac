"""True depth, a few points of it, and what a model says of the same image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lotus2_ros.bags.intrinsics import NAME, NUMBERS, read_calibration
from lotus2_ros.data.sample import Sample
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.scale.scale import RelativeGeometry

FAR = 80.0  # meters; farther is neither truth nor predicted, as usual for streets
DENSE = 0.3  # share of measured pixels; a frame with less is a lidar's, outdoors


def known(depth: Tensor) -> Tensor:
    """Depth (H, W) up to FAR, NaN elsewhere."""
    return torch.where((depth > 0) & (depth < FAR), depth, torch.nan)


def is_dense(depth: Tensor) -> bool:
    return bool(torch.isfinite(depth).float().mean() > DENSE)


def camera_of(frames: Path, frame: Sample) -> Camera:
    """Of a recorded frame, by its intrinsics.json."""
    calibration = read_calibration(frames / frame.name / NAME)
    height, width = frame.image.shape[:2]
    return Camera.from_intrinsics(width, height, *(float(calibration[key]) for key in NUMBERS))


def prediction(estimator: Estimator, image: Tensor, camera: Camera, stamp: float = 0.0) -> RelativeGeometry:
    """Of the image (H, W, 3) at `stamp`, in seconds."""
    geometry = estimator.predict(image, camera)
    assert geometry.disparity is not None  # the bundled model predicts it
    return RelativeGeometry(geometry.disparity, image, geometry.normals, camera, stamp)


def draw(truth: Tensor, points: int, wrong: float, seed: int) -> tuple[Tensor, Tensor]:
    """Flat indices of random measured pixels and their depth, a share `wrong` of them at random depths."""
    generator = torch.Generator().manual_seed(seed)
    measured = torch.nonzero(torch.isfinite(truth).flatten())[:, 0]
    chosen = measured[torch.randperm(len(measured), generator=generator)[:points]]
    low, high = truth[torch.isfinite(truth)].aminmax()
    anywhere = low + (high - low) * torch.rand(len(chosen), generator=generator)
    return chosen, torch.where(torch.arange(len(chosen)) < round(wrong * points), anywhere, truth.flatten()[chosen])


def sparse(places: Tensor, values: Tensor, size: torch.Size) -> Tensor:
    """(H, W) with these values at flat indices, NaN elsewhere."""
    return values.new_full(size, torch.nan).flatten().index_put((places,), values).view(size)
