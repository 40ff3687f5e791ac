"""How far a predicted latent is off once it is decoded: in its values, and in the slopes of the surface it shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.adapted import AdaptedLotus2
from lotus2_ros.training.batches import Batch

# Slopes are compared on depths shrunk so often: the finest sees edges, the coarsest the tilt of walls.
SCALES = (1, 2, 4)
# Added to a disparity in [-1, 1], so that it is that of a surface before the camera, whatever its unknown shift is.
SHIFT = 1.15
# Keeps the slope of a square root finite: a chord of a third of a degree.
ROUNDING = 3e-5


def decoded_error(model: AdaptedLotus2, latent: Tensor, batch: Batch, power: int) -> tuple[Tensor, Tensor]:
    """Two scalars: mean absolute error of the decoded annotation, and mean of chord^power / power between unit normals.

    That is 1 - cos of the angle with power 2, which looks at large angles; with power 1 small ones count as well. For a
    depth these are normals of the surface with that disparity under a camera as wide as the image, which neither need
    be the true one: where two disparities have the same such normals they have the same normals in any camera.
    """
    decoded = model.decode(latent.contiguous(memory_format=torch.channels_last)) * 2 - 1
    truth, valid = batch.annotation.to(decoded), batch.valid.to(decoded)
    values = _mean((decoded - truth).abs().mean(1, keepdim=True), valid)
    if batch.task == "normals":
        return values, _mean(_angle(F.normalize(decoded, dim=1), F.normalize(truth, dim=1), power), valid)
    angles = []
    for scale in SCALES:
        known = (F.avg_pool2d(valid, scale) > 0.999).to(valid)
        normals, true = (surface_normals(F.avg_pool2d(each.mean(1, keepdim=True), scale)) for each in (decoded, truth))
        angles.append(_mean(_angle(normals, true, power), -F.max_pool2d(-known, 2, 1)))
    return values, torch.stack(angles).mean()


def surface_normals(disparity: Tensor) -> Tensor:
    """disparity (B, 1, H, W) in [-1, 1] -> unit vectors (B, 3, H - 1, W - 1), of the plane through a pixel, its right
    and its lower neighbour.

    A plane is 1 / z = m . r on rays r = (u / f, v / f, 1), so m = (f d_u, f d_v, d - u d_u - v d_v).
    """
    height, width = disparity.shape[2:]
    focal = max(height, width)
    rows, columns = (torch.arange(n - 1, device=disparity.device) - (n - 1) / 2 for n in (height, width))
    middle = disparity[:, :, :-1, :-1]
    right, down = disparity[:, :, :-1, 1:] - middle, disparity[:, :, 1:, :-1] - middle
    along = middle + SHIFT - columns * right - rows[:, None] * down
    return F.normalize(torch.cat((focal * right, focal * down, along), dim=1), dim=1)


def _angle(normals: Tensor, truth: Tensor, power: int) -> Tensor:
    """(B, 3, H, W) unit vectors, twice -> (B, 1, H, W)."""
    chord_squared = (normals - truth).square().sum(1, keepdim=True)
    return (chord_squared + ROUNDING).sqrt() if power == 1 else chord_squared / 2


def _mean(error: Tensor, valid: Tensor) -> Tensor:
    return (error * valid).sum() / valid.sum().clamp_min(1)
