"""From a model's annotation latents to what they say of each pixel of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.geometry.depth import Space, affine_depth_to_disparity, affine_depth_to_disparity_std
from lotus2_ros.geometry.normals import MODEL_TO_OPTICAL, normalize
from lotus2_ros.model.interface import GeometryModel

# The field that a model's depths go to, by the space it predicts.
PREDICTED = {"disparity": "disparity", "depth": "affine_depth"}


@dataclass(frozen=True)
class Annotations:
    """Of the tasks at hand, at the image's size. Of disparity and affine_depth there is one at the most at first."""

    disparity: Tensor | None = None  # (H, W) float32 in [0, 1], affine-invariant, 1 = near
    affine_depth: Tensor | None = None  # (H, W) float32 in [0, 1], affine-invariant, 0 = near
    normals: Tensor | None = None  # (H, W, 3) float32, unit, optical frame, toward the camera
    uncertainty: Tensor | None = None  # (H, W) float32, standard deviation of either over answers; None: of one

    @property
    def affine(self) -> tuple[Tensor, Space] | None:
        """What the model itself says of depth, up to scale and shift, and of what it says that."""
        if self.affine_depth is not None:
            return self.affine_depth, "depth"
        return None if self.disparity is None else (self.disparity, "disparity")

    def inverted(self, shift: float) -> Annotations:
        """With the disparity that follows from the depth, see :func:`affine_depth_to_disparity`."""
        assert self.affine_depth is not None
        spread = self.uncertainty
        if spread is not None:
            spread = affine_depth_to_disparity_std(spread, self.affine_depth, shift)
        return replace(self, disparity=affine_depth_to_disparity(self.affine_depth, shift), uncertainty=spread)


def annotate(model: GeometryModel, latents: Mapping[str, Tensor], size: Sequence[int]) -> Annotations:
    """Decode latents (N, C, h, w) by task, all at once, and bring them to ``size``; of N samples the median counts."""
    if not latents:
        return Annotations()
    decoded = model.decode(torch.cat(list(latents.values())))
    found = Annotations()
    for task, pictures in zip(latents, decoded.split([len(samples) for samples in latents.values()]), strict=True):
        if task == "depth":
            # The mean of the channels first: it is the same, and one channel is resized faster than three.
            values = pictures.mean(dim=1, keepdim=True)
            answer = _median(values)
            seen = _resized(model, answer, size)[0]
            spread = _resized(model, deviation(values[:, 0], answer[0])[None], size)[0] if len(values) > 1 else None
            found = replace(found, uncertainty=spread, **{PREDICTED[model.predicts]: seen})
        else:
            # Length 1 only after resizing: means of unit vectors are shorter.
            vectors = 2 * _resized(model, _median(pictures), size).permute(1, 2, 0) - 1
            found = replace(found, normals=normalize(MODEL_TO_OPTICAL * vectors))
    return found


def deviation(answers: Tensor, answer: Tensor) -> Tensor:
    """Standard deviation (H, W) of affine-invariant answers (N, H, W), each first fitted to `answer` (H, W).

    A difference in scale and shift says nothing of where an answer is wrong: left in, it makes the deviation useless.
    """
    centred, others = answer - answer.mean(), answers - answers.mean(dim=(1, 2), keepdim=True)
    slopes = (centred * others).mean(dim=(1, 2)) / others.square().mean(dim=(1, 2)).clamp_min(1e-12)
    return (slopes[:, None, None] * others).std(dim=0, correction=0)


def _median(samples: Tensor) -> Tensor:
    """(N, C, h, w) -> (C, h, w), of an even N the mean of the two in the middle."""
    return samples[0] if len(samples) == 1 else samples.quantile(0.5, dim=0)


def _resized(model: GeometryModel, picture: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(picture[None], tuple(size), mode=model.upsampling)[0]
