"""Errors of predicted latents after decoding: of the values, and of the surface normals that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.trainable import TrainedPart
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.latents import mean_square

# Downsampling factors at which slopes are compared: the finest for edges, the coarsest for the tilt of walls.
SCALES = (1, 2, 4)
# Lower limit of disparity in relative errors, as a share of a view's range; otherwise the sky would dominate.
FARTHEST = 0.03
# Disparities below this share of the range are sky, which the fit ignores.
SKY = 1e-3
# Keeps the gradient of a square root finite; the chord of a third of a degree.
ROUNDING = 3e-5
# Keeps the fit to a constant prediction finite; the variance of a hundredth of the range.
FLAT = 1e-4


@dataclass(frozen=True)
class DecodedError:
    """Scalars. values: mean absolute error of the annotation in [-1, 1]; angles: mean of chord^power / power between
    unit normals, which is 1 - cos of the angle with power 2 and lets small angles count with power 1; relative: what
    AbsRel measures, see :func:`relative_error`, 0 of normals."""

    values: Tensor
    angles: Tensor
    relative: Tensor


class EndToEndLoss(BaseModel):
    """Adds the errors of the decoded annotation to the squared error of the latent, see :class:`DecodedError`, as in
    the end-to-end fine-tuning of arXiv 2409.11355.

    decoder: also train the VAE's decoder; its inputs are predictions, which are smoother than the latents it was
    trained on.
    """

    decoded: float = Field(gt=0)
    angles: float = Field(gt=0)
    power: Literal[1, 2]
    relative: float = Field(default=0.0, ge=0)
    decoder: bool = False

    def part(self) -> TrainedPart:
        return "core_and_decoder" if self.decoder else "core"

    def of_prediction(self, model: GeometryModel, predicted: Tensor, truth: Tensor, batch: Batch) -> Tensor:
        """The loss, a scalar, for latents (B, C, h, w)."""
        error = decoded_error(model, predicted, batch, self.power)
        decoded = self.decoded * error.values + self.angles * error.angles + self.relative * error.relative
        return mean_square(predicted - truth, model, batch) + decoded


def decoded_error(model: GeometryModel, latent: Tensor, batch: Batch, power: int) -> DecodedError:
    """The errors of `latent` (B, C, h, w) against the batch's annotation, over its valid pixels.

    What is decoded is not clamped, so that an answer beyond the range can be put right. The angles of a depth are those
    of its slopes, at the true disparity and under a camera as wide as the image, which need not be the true one: where
    two disparities have the same such normals they have the same normals in any camera. The disparity itself is not
    theirs to move: the same slope is a steeper surface where it is small, so the far would be pushed near.
    """
    with torch.autocast(latent.device.type, enabled=False):  # bfloat16's steps are as high as the slopes of what is far
        decoded = model.decode_unclamped(latent.float().contiguous(memory_format=torch.channels_last))
    truth, valid = batch.annotation.to(decoded) * 0.5 + 0.5, batch.valid.to(decoded)
    values = 2 * _mean((decoded - truth).abs().mean(1, keepdim=True), valid)
    if batch.task == "normals":
        normals, true = (F.normalize(2 * each - 1, dim=1) for each in (decoded, truth))
        return DecodedError(values, _mean(_angle(normals, true, power), valid), torch.zeros_like(values))
    answer, disparity = decoded.mean(1, keepdim=True), truth[:, :1]
    inverse_depth = (disparity + batch.shift.to(decoded)[:, None, None, None]).clamp_min(0)
    angles = []
    for scale in SCALES:
        known = (F.avg_pool2d(valid, scale) > 0.999).to(valid)
        at = F.avg_pool2d(inverse_depth, scale).clamp_min(FARTHEST)
        normals, true = (surface_normals(F.avg_pool2d(each, scale), at) for each in (answer, disparity))
        angles.append(_mean(_angle(normals, true, power), -F.max_pool2d(-known, 2, 1)))
    return DecodedError(values, torch.stack(angles).mean(), relative_error(answer, disparity, inverse_depth, valid))


def relative_error(answer: Tensor, disparity: Tensor, inverse_depth: Tensor, valid: Tensor) -> Tensor:
    """Mean of |a answer + b - disparity| / inverse_depth with the a and b that fit each view best: the share by which
    1 / depth is off, which is AbsRel as far as it is small.

    All (B, 1, H, W); disparity in [0, 1], inverse_depth proportional to 1 / depth with the same unit; the fit is the
    evaluation's, least squares over what is not sky.
    """
    fitted = valid * (inverse_depth > SKY)
    x, y = (each - _mean_of_each(each, fitted) for each in (answer, disparity))
    scale = _mean_of_each(x * y, fitted) / (_mean_of_each(x * x, fitted) + FLAT)
    return _mean((scale * x - y).abs() / inverse_depth.clamp_min(FARTHEST), valid)


def surface_normals(disparity: Tensor, inverse_depth: Tensor) -> Tensor:
    """Unit vectors (B, 3, H - 1, W - 1) of the plane through a pixel, its right and its lower neighbor: their slopes
    by `disparity`, the pixel's own place by `inverse_depth`, both (B, 1, H, W) and in one unit of 1 / depth.

    A plane is 1 / z = m . r on rays r = (u / f, v / f, 1), so m = (f d_u, f d_v, d - u d_u - v d_v).
    """
    height, width = disparity.shape[2:]
    focal = max(height, width)
    rows, columns = (torch.arange(n - 1, device=disparity.device) - (n - 1) / 2 for n in (height, width))
    middle = disparity[:, :, :-1, :-1]
    right, down = disparity[:, :, :-1, 1:] - middle, disparity[:, :, 1:, :-1] - middle
    along = inverse_depth[:, :, :-1, :-1] - columns * right - rows[:, None] * down
    return F.normalize(torch.cat((focal * right, focal * down, along), dim=1), dim=1)


def _angle(normals: Tensor, truth: Tensor, power: int) -> Tensor:
    """(B, 3, H, W) unit vectors, twice -> (B, 1, H, W)."""
    chord_squared = (normals - truth).square().sum(1, keepdim=True)
    return (chord_squared + ROUNDING).sqrt() if power == 1 else chord_squared / 2


def _mean_of_each(values: Tensor, counted: Tensor) -> Tensor:
    """(B, 1, 1, 1), of views (B, 1, H, W)."""
    return (values * counted).sum(dim=(1, 2, 3), keepdim=True) / counted.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)


def _mean(error: Tensor, valid: Tensor) -> Tensor:
    return (error * valid).sum() / valid.sum().clamp_min(1)
