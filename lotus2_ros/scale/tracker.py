"""What stays still in the image keeps its depth: the scale of a frame from the frames before it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.scale.fit import fit_scale_shift

# Longer side of the small pictures that are compared, pixels: their pixels are means, so noise is small in them.
SIDE = 80
# Of the small picture's pixels: something that moved by so much is not still.
MOVED = 0.1
# Noise of the small picture, of its mean, at the least: differences below it say nothing.
NOISE = 0.01
# Share of what can be told to be still: below the first the camera moves, above the second it does not.
MOVING, STANDING = 0.3, 0.7
# Frames that are averaged at the most.
MEMORY = 20
# Relative; a larger change of inverse depth is no flicker.
FLICKER = 0.05
# Two pictures that are less alike are not of the same place. That is told from pictures of so many pixels' longer side,
# and so much of their mean is not told from noise.
CUT, COARSE_SIDE, PLAIN = 0.4, 20, 0.05
# Quantiles of disparity that scales are compared at: of a street's image more than half may be sky, where inverse depth
# is so near to 0 that its ratios say nothing.
LEVELS = (0.75, 0.95)


@dataclass(frozen=True)
class TrackingResult:
    """What the frames before say of a new one.

    ``line`` is the scale and shift that leave still things where they were; None if too little stays still. ``still``:
    from 0, the camera moves, to 1, it stands. ``levels`` are the frame's disparity, farther and nearer, to compare
    scales at; empty where there is nothing to compare. ``cut``: this is another place.
    """

    line: tuple[float, float] | None = None
    still: float = 0.0
    levels: tuple[float, ...] = ()
    cut: bool = False


class Tracker:
    """Remembers where still things are: averages of the image and of inverse depth, pixel by pixel, at a small size.

    A pixel's averages go back as far as it has been still, at most MEMORY frames. Motion is told from the difference to
    the averaged image: measured against the past of many frames a slow motion shows as well. It is weighed against the
    image's gradient, so what has no texture says nothing, and shares what the rest says.
    """

    def __init__(self) -> None:
        self._image: Tensor | None = None  # (h, w), of mean 1: a camera's automatic exposure is no motion
        self._inverse_depth = torch.empty(0)
        self._age = torch.empty(0)  # frames since it last moved
        self._next: tuple[Tensor, Tensor, Tensor] | None = None  # the new frame's image, disparity and stillness

    def look(self, disparity: Tensor, image: Tensor) -> TrackingResult:
        """What is known of a frame: ``disparity`` (H, W), ``image`` (H, W, 3) uint8. :meth:`settle` comes next."""
        size = small_size(disparity.shape[0], disparity.shape[1], SIDE)
        picture = F.adaptive_avg_pool2d(image[..., 1].float()[None, None], size)[0, 0]
        picture = picture / picture.mean().clamp_min(1.0)
        small = F.adaptive_avg_pool2d(disparity[None, None], size)[0, 0]
        if self._image is None or self._image.shape != picture.shape:
            self._next = picture, small, torch.zeros_like(picture)
            return TrackingResult(cut=self._image is not None)
        weight, standing = stillness(picture, self._image)
        scale, shift, _ = fit_scale_shift(small.flatten(), self._inverse_depth.flatten(), weight.flatten())
        alike = likeness(picture, self._image)
        self._next = picture, small, torch.where(alike >= CUT, weight, 0)
        levels = small.quantile(small.new_tensor(LEVELS))
        # One read of the device for all of it.
        found = torch.cat([torch.stack([scale, shift, standing, alike]).double(), levels.double()]).tolist()
        if not found[3] >= CUT:
            return TrackingResult(cut=True)
        held = found[2] > 0 and not math.isnan(found[0])
        return TrackingResult((found[0], found[1]) if held else None, found[2], tuple(found[4:]))

    def settle(self, scale: float, shift: float) -> Tensor:
        """Take the frame that was looked at into the averages, with the scale and shift that it got.

        Returns what is to be added to its inverse depth (h, w) to make it the average: 0 where it moved.
        """
        assert self._next is not None  # after look
        picture, small, weight = self._next
        inverse_depth = scale * small + shift
        if self._image is None or self._image.shape != picture.shape:
            self._age = torch.zeros_like(picture)
            self._image, self._inverse_depth = picture, inverse_depth
        # What changes by more than flicker came or went without being seen to.
        flickers = (inverse_depth - self._inverse_depth).abs() < FLICKER * self._inverse_depth.abs()
        self._age = (self._age * weight * flickers + 1).clamp_max(MEMORY)
        self._image = torch.lerp(self._image, picture, 1 / self._age)
        self._inverse_depth = torch.lerp(self._inverse_depth, inverse_depth, 1 / self._age)
        return self._inverse_depth - inverse_depth

    def change(self, factor: float, offset: float) -> None:
        """Correct what is remembered to factor * inverse depth + offset: the scale was found to be another."""
        self._inverse_depth = factor * self._inverse_depth + offset


def small_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of the same shape with a longer side of ``side`` at the most."""
    shrink = max(1.0, max(height, width) / side)
    return max(1, round(height / shrink)), max(1, round(width / shrink))


def likeness(picture: Tensor, past: Tensor) -> Tensor:
    """From 1, two pictures (h, w) of mean 1 are of one place, to about 0: structural similarity (Wang et al. 2004).

    Without the means of their rows and columns: floors are dark and ceilings bright in every room.
    """
    new, old = (_structure(image) for image in (picture, past))
    return (2 * (new * old).mean() + PLAIN**2) / (new.square().mean() + old.square().mean() + PLAIN**2)


def _structure(picture: Tensor) -> Tensor:
    coarse = F.adaptive_avg_pool2d(picture[None], small_size(picture.shape[0], picture.shape[1], COARSE_SIDE))[0]
    return coarse - coarse.mean(0, keepdim=True) - coarse.mean(1, keepdim=True) + coarse.mean()


def stillness(picture: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """How still each pixel (h, w) of a picture is, and from 0 to 1 whether the camera stands.

    Around each pixel a motion by x pixels changes the picture by x times its gradient (Lucas and Kanade 1981).
    """
    gradient = _box(F.pad(_gradient(past), (1, 1, 1, 1), mode="replicate"))
    change = _box((picture - past).square()[None, None])
    allowed = MOVED**2 * gradient + _noise(change, gradient)
    still = (2 - change / allowed).clamp(0, 1)
    tells = MOVED**2 * gradient / allowed  # from 0, no texture, to 1
    share = (tells * still).sum() / tells.sum().clamp_min(1e-6)
    standing = ((share - MOVING) / (STANDING - MOVING)).clamp(0, 1)
    return (still * (tells + (1 - tells) * standing) * (standing > 0))[0, 0], standing


def _noise(change: Tensor, gradient: Tensor) -> Tensor:
    """Squared noise: what change would be left where there is no gradient, by the plainer and the other half."""
    is_plain = gradient <= gradient.median()
    (low, low_change), (high, high_change) = (
        [torch.where(half, values, torch.nan).nanmedian() for values in (gradient, change)]
        for half in (is_plain, ~is_plain)
    )
    slope = ((high_change - low_change) / (high - low).clamp_min(1e-12)).clamp_min(0)
    return (low_change - slope * low).clamp_min(NOISE**2)


def _gradient(picture: Tensor) -> Tensor:
    """Squared gradient (1, 1, h - 2, w - 2), by central differences."""
    across = (picture[1:-1, 2:] - picture[1:-1, :-2]) / 2
    down = (picture[2:, 1:-1] - picture[:-2, 1:-1]) / 2
    return (across.square() + down.square())[None, None]


def _box(values: Tensor) -> Tensor:
    """Mean over 5 x 5 pixels around each."""
    return F.avg_pool2d(F.pad(values, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
