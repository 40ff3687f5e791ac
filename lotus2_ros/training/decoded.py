"""Errors of predicted latents after decoding: of the values, and of the surface normals that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.torch_model import TorchModel
from lotus2_ros.model.trainable import TrainedPart
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.latents import mean_square

# Downsampling factors at which slopes are compared: the finest for edges, the coarsest for the tilt of walls.
SCALES = (1, 2, 4)
GRADIENT_SCALES, EDGE_SCALES = (1, 2, 4, 8), (1, 2)
# Lower limit of disparity in relative errors, as a share of a view's range; otherwise the sky would dominate.
FARTHEST = 0.03
# Disparities below this share of the range are sky, which the fit ignores.
SKY = 1e-3
# Keeps the gradient of a square root finite; the chord of a third of a degree.
ROUNDING = 3e-5
# Thresholds of log depth for an edge, as in the boundary F1 of Depth Pro (arXiv 2410.02073), and their softness.
EDGE_STEPS, SOFTNESS = (0.05, 0.1, 0.2), 0.02
# Keeps the fit to a constant prediction finite; the variance of a hundredth of the range.
FLAT = 1e-4
# Lower limit of a view's slope, of truth over answer. It is about 1, and 0 where an answer is wrong everywhere.
FLATTEST = 0.1


@dataclass(frozen=True)
class DecodedError:
    """Scalars. values: mean absolute error of the annotation in [-1, 1]. angles: mean of chord^power / power between
    unit normals; with power 2 that is 1 - cos of the angle, with power 1 small angles count more. of_fit: of a depth,
    None of normals."""

    values: Tensor
    angles: Tensor
    of_fit: FittedError | None


class FittedError(NamedTuple):
    """Errors of a disparity after the least-squares scale and shift of each view, as in the evaluation (MiDaS, arXiv
    1907.01341). All are scalars.

    relative: relative error of 1 / depth, which is AbsRel if it is small. fitted: mean absolute error, relative to the
    range of the view. gradients: error of the differences between neighbors, at several scales. correlation: 1 minus
    the correlation. edges: as gradients, of log depth, in which the height of an edge is the ratio of its two sides,
    near or far. boundary: 1 minus a soft boundary F1. A prediction that blurs an edge over two possible places has the
    smallest error of differences, but not the best F1.
    """

    relative: Tensor
    fitted: Tensor
    gradients: Tensor
    correlation: Tensor
    edges: Tensor
    boundary: Tensor


class EndToEndLoss(BaseModel):
    """Adds the errors of the decoded annotation to the squared error of the latent, see :class:`DecodedError`, as in
    the end-to-end fine-tuning of arXiv 2409.11355.

    latent: weight of the latent's own error. views: number of views of a batch that are decoded, which
    takes most of the time of a step; None: all. slopes: whether the angles of a depth's slopes count; without them the
    depth is decoded in mixed precision.
    """

    decoded: float = Field(gt=0)
    angles: float = Field(gt=0)
    power: Literal[1, 2]
    relative: float = Field(default=0.0, ge=0)
    fitted: float = Field(default=0.0, ge=0)
    gradients: float = Field(default=0.0, ge=0)
    correlation: float = Field(default=0.0, ge=0)
    edges: float = Field(default=0.0, ge=0)
    boundary: float = Field(default=0.0, ge=0)
    latent: float = Field(default=1.0, ge=0)
    views: int | None = Field(default=None, ge=1)
    slopes: bool = True

    def of_prediction(self, model: TorchModel, predicted: Tensor, truth: Tensor, batch: Batch) -> Tensor:
        """The loss, a scalar, for latents (B, C, h, w)."""
        error = decoded_error(model, predicted[: self.views], batch.first(self.views), self.power, self.slopes)
        of_fit = error.of_fit._asdict() if error.of_fit is not None else {}
        weighted = sum(getattr(self, name) * value for name, value in of_fit.items()) + self.angles * error.angles
        return self.latent * mean_square(predicted - truth, model, batch) + self.decoded * error.values + weighted


class CoreEndToEndLoss(EndToEndLoss):
    """Of a core predictor. decoder: also train the VAE's decoder, because predictions are smoother than the latents
    that it was trained on."""

    decoder: bool = False

    def part(self) -> TrainedPart:
        return "core_and_decoder" if self.decoder else "core"


def decoded_error(model: TorchModel, latent: Tensor, batch: Batch, power: int, slopes: bool = True) -> DecodedError:
    """The errors of `latent` (B, C, h, w) against the batch's annotation, over its valid pixels.

    Decoded values are not clamped, so that values outside the range get a gradient. The angles of a depth are between
    the normals of its slopes, at the true disparity and for a camera as wide as the image. That need not be the true
    camera: if two disparities have the same normals for one camera, they have the same for any. The disparity must be
    the true one, because the same slope is a steeper surface at a small disparity, so the loss would pull far points
    nearer. Without `slopes` the angles of a depth are 0.
    """
    latent = latent.float().contiguous(memory_format=torch.channels_last)
    if slopes:  # the steps of bfloat16 are as high as the slopes of far surfaces
        with torch.autocast(latent.device.type, enabled=False):
            decoded = model.decode_unclamped(latent)
    else:
        decoded = model.decode_unclamped(latent)
    truth, valid = batch.annotation.to(decoded) * 0.5 + 0.5, batch.valid.to(decoded)
    values = 2 * _mean((decoded - truth).abs().mean(1, keepdim=True), valid)
    if batch.task == "normals":
        normals, true = (F.normalize(2 * each - 1, dim=1) for each in (decoded, truth))
        return DecodedError(values, _mean(_angle(normals, true, power), valid), None)
    answer, disparity = decoded.mean(1, keepdim=True), truth[:, :1]
    inverse_depth = (disparity + batch.shift.to(decoded)[:, None, None, None]).clamp_min(0)
    of_fit = fitted_error(answer, disparity, inverse_depth, valid)
    if not slopes:
        return DecodedError(values, torch.zeros_like(values), of_fit)
    angles = []
    for scale in SCALES:
        known = (F.avg_pool2d(valid, scale) > 0.999).to(valid)
        at = F.avg_pool2d(inverse_depth, scale).clamp_min(FARTHEST)
        normals, true = (surface_normals(F.avg_pool2d(each, scale), at) for each in (answer, disparity))
        angles.append(_mean(_angle(normals, true, power), -F.max_pool2d(-known, 2, 1)))
    return DecodedError(values, torch.stack(angles).mean(), of_fit)


def fitted_error(answer: Tensor, disparity: Tensor, inverse_depth: Tensor, valid: Tensor) -> FittedError:
    """The errors of a answer + b, with the least-squares a and b of each view over everything but the sky.

    All (B, 1, H, W); disparity in [0, 1], inverse_depth proportional to 1 / depth with the same unit.
    """
    known = valid * (inverse_depth > SKY)
    x, y = (each - _mean_of_each(each, known) for each in (answer, disparity))
    together, squared, true_squared = (_mean_of_each(a * b, known) for a, b in ((x, y), (x, x), (y, y)))
    error = together / (squared + FLAT) * x - y
    correlation = together / ((squared + FLAT) * (true_squared + FLAT)).sqrt()
    logarithm, true_logarithm = (each.clamp_min(FARTHEST).log() for each in (inverse_depth + error, inverse_depth))
    ratio = logarithm - true_logarithm
    return FittedError(
        relative=_mean(error.abs() / inverse_depth.clamp_min(FARTHEST), valid),
        fitted=_mean(error.abs(), valid),
        gradients=torch.stack([_slope(error, valid, scale) for scale in GRADIENT_SCALES]).mean(),
        correlation=1 - correlation.mean(),
        edges=torch.stack([_slope(ratio, valid, scale) for scale in EDGE_SCALES]).mean(),
        boundary=1 - soft_boundary_f1(logarithm, true_logarithm, valid),
    )


def disparity_error(answer: Tensor, disparity: Tensor, known: Tensor) -> Tensor:
    """The distance of each answer from the truth's place on the least-squares line of its view, in units of the answer.

    All (B, 1, H, W), known with 1 where the truth is."""
    x, y = (each - _mean_of_each(each, known) for each in (answer, disparity))
    slope = _mean_of_each(x * y, known) / (_mean_of_each(x.square(), known) + FLAT)
    return (x - y / slope.clamp_min(FLATTEST)).abs()


def soft_boundary_f1(logarithm: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """The boundary F1 of log depths (B, 1, H, W) with soft thresholds, over all views; a scalar in [0, 1]."""
    together: list[Tensor] = []
    for threshold in EDGE_STEPS:
        right, there = torch.zeros_like(valid.sum()), torch.zeros_like(valid.sum())
        for dim in (2, 3):
            step, true_step = logarithm.diff(dim=dim), truth.diff(dim=dim)
            known = -F.max_pool2d(-valid, (2, 1) if dim == 2 else (1, 2), 1)
            ours = (((step - threshold) / SOFTNESS).sigmoid() - ((-step - threshold) / SOFTNESS).sigmoid()) * known
            theirs = ((true_step > threshold).to(ours) - (true_step < -threshold).to(ours)) * known
            right = right + 2 * (ours * theirs).clamp_min(0).sum()
            there = there + ours.abs().sum() + theirs.abs().sum()
        together.append(right / there.clamp_min(1))
    return torch.stack(together).mean()


def _slope(error: Tensor, valid: Tensor, scale: int) -> Tensor:
    """Mean size of the differences to the right and to the lower pixel, of (B, 1, H, W) shrunk by `scale`."""
    error, known = F.avg_pool2d(error, scale), (F.avg_pool2d(valid, scale) > 0.999).to(valid)
    across = _mean(error.diff(dim=3).abs(), known[..., 1:] * known[..., :-1])
    return across + _mean(error.diff(dim=2).abs(), known[:, :, 1:] * known[:, :, :-1])


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
