"""From a model's annotation latents to disparity and normals at the image's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.geometry.depth import PREDICTED, Space, affine_depth_to_disparity, affine_depth_to_disparity_std
from lotus2_ros.geometry.normals import MODEL_TO_OPTICAL, normalize
from lotus2_ros.inference.upsampling import Guidance, guided_upsample
from lotus2_ros.model.interface import GeometryModel


@dataclass(frozen=True)
class Annotations:
    """Predictions of the chosen tasks at the image's size. A model predicts either disparity or affine_depth."""

    disparity: Tensor | None = None  # (H, W) float32 in [0, 1], affine-invariant, 1 = near
    affine_depth: Tensor | None = None  # (H, W) float32 in [0, 1], affine-invariant, 0 = near
    normals: Tensor | None = None  # (H, W, 3) float32, unit, optical frame, toward the camera
    uncertainty: Tensor | None = None  # (H, W) float32, standard deviation of either
    is_guided: bool = False  # whether the details of either are the image's

    @property
    def affine(self) -> tuple[Tensor, Space] | None:
        """The model's own output for depth, up to scale and shift, and the space it is in."""
        if self.affine_depth is not None:
            return self.affine_depth, "depth"
        return None if self.disparity is None else (self.disparity, "disparity")

    def inverted(self, shift: float) -> Annotations:
        """With the disparity computed from the affine depth, see :func:`affine_depth_to_disparity`."""
        assert self.affine_depth is not None
        spread = self.uncertainty
        if spread is not None:
            spread = affine_depth_to_disparity_std(spread, self.affine_depth, shift)
        return replace(self, disparity=affine_depth_to_disparity(self.affine_depth, shift), uncertainty=spread)


def annotate(
    model: GeometryModel, latents: Mapping[str, Tensor], image: Tensor, *, guidance: Guidance | None = None
) -> Annotations:
    """Decode latents (N, C, h, w) by task in one batch, take the median of N samples, and resize to the size of
    ``image`` (H, W, 3) uint8. With a ``guidance`` the edges of depth follow those of the image."""
    if not latents:
        return Annotations()
    size = image.shape[:2]
    decoded = model.decode(torch.cat(list(latents.values())))
    found = Annotations()
    for task, pictures in zip(latents, decoded.split([len(samples) for samples in latents.values()]), strict=True):
        if task == "depth":
            # The mean of the channels first: the result is the same, and resizing one channel is faster than three.
            values = pictures.mean(dim=1, keepdim=True)
            answer = _median(values)
            if guidance is None:
                seen = _resized(model, answer, size)[0]
            else:
                seen = guided_upsample(answer[None], image, guidance)[0, 0]
            found = replace(found, is_guided=guidance is not None, **{PREDICTED[model.settings.predicts]: seen})
            if len(values) > 1:
                found = replace(found, uncertainty=_resized(model, deviation(values[:, 0], answer[0])[None], size)[0])
            elif model.has_uncertainty:
                spread = model.predict_uncertainty(latents[task])
                found = replace(found, uncertainty=_resized(model, spread[0], size)[0])
        else:
            # Normalized after resizing, because a mean of unit vectors is shorter than 1.
            vectors = 2 * _resized(model, _median(pictures), size).permute(1, 2, 0) - 1
            found = replace(found, normals=normalize(MODEL_TO_OPTICAL * vectors))
    return found


def deviation(answers: Tensor, answer: Tensor) -> Tensor:
    """Standard deviation (H, W) of affine-invariant answers (N, H, W), each first fitted to `answer` (H, W).

    Differences in scale and shift do not show where an answer is wrong and would dominate the deviation.
    """
    centered, others = answer - answer.mean(), answers - answers.mean(dim=(1, 2), keepdim=True)
    slopes = (centered * others).mean(dim=(1, 2)) / others.square().mean(dim=(1, 2)).clamp_min(1e-12)
    return (slopes[:, None, None] * others).std(dim=0, correction=0)


def _median(samples: Tensor) -> Tensor:
    """(N, C, h, w) -> (C, h, w); for an even N the mean of the two in the middle."""
    return samples[0] if len(samples) == 1 else samples.quantile(0.5, dim=0)


def _resized(model: GeometryModel, picture: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(picture[None], tuple(size), mode=model.upsampling)[0]
