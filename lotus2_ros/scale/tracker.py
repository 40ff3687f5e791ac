"""Register a frame to the frames before it: the scale that leaves static surfaces where they were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.model.engine.device import to_host
from lotus2_ros.scale.fit import fit_scale_shift

# Longer side of the thumbnails that are compared, pixels. Their pixels are means, so they have little noise.
THUMBNAIL_SIDE = 80
# A surface that moved by this many thumbnail pixels is not static.
MAX_MOTION = 0.1
# Smallest noise of the thumbnail, relative to its mean. Smaller differences carry no information.
MIN_NOISE = 0.01
# Fraction of the textured pixels that are static: below the first the camera moves, above the second it stands still.
MOVING, STATIONARY = 0.3, 0.7
# Largest number of frames in the averages.
MAX_AGE = 20
# Largest relative change of inverse depth that counts as flicker, and that leaves a pixel static in doubt.
MAX_FLICKER, MAX_DOUBT = 0.1, 0.2
# A scene cut: the structural similarity of two thumbnails with this longer side, in pixels, is below the threshold.
# Contrast below CUT_NOISE, relative to the mean, does not count as structure.
CUT_SIMILARITY, CUT_SIDE, CUT_NOISE = 0.4, 20, 0.05
# Quantiles of disparity at which scales are compared. Of a street more than half may be sky, where inverse depth is so
# close to 0 that its ratios mean nothing.
QUANTILES = (0.75, 0.95)


@dataclass(frozen=True)
class Registration:
    """How a frame relates to the frames before it. The defaults mean that there is nothing to compare it with."""

    # Scale and shift that leave static surfaces where they were; None: too little is static.
    scale_shift: tuple[float, float] | None = None
    stationarity: float = 0.0  # from 0, the camera moves, to 1, it stands still
    disparities: tuple[float, ...] = ()  # quantiles of the frame's disparity, far first, at which to compare scales
    scene_cut: bool = False  # the frame shows another place


class Tracker:
    """Running averages of the image and of inverse depth over static pixels, at thumbnail size.

    A pixel's averages include the frames since it last moved, at most MAX_AGE. Motion is detected by the difference to
    the averaged image; against many past frames a slow motion shows as well. The difference is compared with the
    image's gradient. Pixels without texture carry no information about motion and follow the rest of the image.

    Each frame takes two calls: :meth:`register`, then :meth:`update` with the scale that was found for it.
    """

    def __init__(self) -> None:
        self._image: Tensor | None = None  # (h, w), scaled to mean 1, so that automatic exposure is no motion
        self._inverse_depth = torch.empty(0)
        self._age = torch.empty(0)  # frames since the pixel last moved
        # Of the last frame (h, w): from 0, the pixel moved, to 1, it is static or in doubt; and whether its depth is as
        # before, but for flicker. None: no frame yet.
        self.still: Tensor | None = None
        self.agrees: Tensor | None = None
        # Of the registered frame: thumbnails of image and disparity, and the weight of static pixels.
        self._pending: tuple[Tensor, Tensor, Tensor] | None = None

    def register(self, disparity: Tensor, image: Tensor) -> Registration:
        """Compare a frame with the averages: ``disparity`` (H, W), ``image`` (H, W, 3) uint8."""
        size = thumbnail_size(disparity.shape[0], disparity.shape[1], THUMBNAIL_SIDE)
        pooled = (F.adaptive_avg_pool2d(plane[None], size)[0] for plane in (image[..., 1].float(), disparity))
        # The rest is hundreds of tiny operations, which are slower on a GPU, where each has to be launched.
        thumbnail, small = to_host(*pooled)
        thumbnail = thumbnail / thumbnail.mean().clamp_min(1.0)
        if self._image is None or self._image.shape != thumbnail.shape:
            self._pending = thumbnail, small, torch.zeros_like(thumbnail)
            return Registration(scene_cut=self._image is not None)
        weight, stationarity = static_weight(thumbnail, self._image)
        scale, shift, _ = fit_scale_shift(small.flatten(), self._inverse_depth.flatten(), weight.flatten())
        similarity = structural_similarity(thumbnail, self._image)
        self._pending = thumbnail, small, torch.where(similarity >= CUT_SIMILARITY, weight, 0)
        quantiles = small.quantile(small.new_tensor(QUANTILES))
        results = torch.stack([scale, shift, stationarity.double(), similarity.double(), *quantiles.double()]).tolist()
        if not results[3] >= CUT_SIMILARITY:
            return Registration(scene_cut=True)
        is_found = results[2] > 0 and not math.isnan(results[0])
        scale_shift = (results[0], results[1]) if is_found else None
        return Registration(scale_shift, stationarity=results[2], disparities=tuple(results[4:]))

    def update(self, scale: float, shift: float) -> Tensor:
        """Add the registered frame, with its scale and shift, to the averages.

        Returns the correction (h, w) from its inverse depth to the average; 0 where a pixel moved.
        """
        assert self._pending is not None  # after register
        thumbnail, small, weight = self._pending
        inverse_depth = scale * small + shift
        if self._image is None or self._image.shape != thumbnail.shape:
            self._age = torch.zeros_like(thumbnail)
            self._image, self._inverse_depth = thumbnail, inverse_depth
        # A larger change than flicker is an object that came or went unnoticed in the image.
        change = (inverse_depth - self._inverse_depth).abs() / self._inverse_depth.abs()
        flickers = change < MAX_FLICKER
        still = weight * flickers
        self.still, self.agrees = (2 * weight).clamp_max(1) * (change < MAX_DOUBT), flickers
        self._age = (self._age * still + 1).clamp_max(MAX_AGE)
        self._image = torch.lerp(self._image, thumbnail, 1 / self._age)
        self._inverse_depth = torch.lerp(self._inverse_depth, inverse_depth, 1 / self._age)
        return self._inverse_depth - inverse_depth

    def transform(self, factor: float, offset: float) -> None:
        """Replace the averaged inverse depth by factor * inverse depth + offset, after a correction of the scale."""
        self._inverse_depth = factor * self._inverse_depth + offset


def thumbnail_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of the same aspect ratio with a longer side of at most ``side``."""
    shrink = max(1.0, max(height, width) / side)
    return max(1, round(height / shrink)), max(1, round(width / shrink))


def structural_similarity(thumbnail: Tensor, past: Tensor) -> Tensor:
    """From about 0 to 1, for two thumbnails (h, w) of mean 1 of the same place (Wang et al. 2004).

    The means of rows and columns are subtracted first: in every room the floor is dark and the ceiling bright.
    """
    new, old = (_structure(image) for image in (thumbnail, past))
    return (2 * (new * old).mean() + CUT_NOISE**2) / (new.square().mean() + old.square().mean() + CUT_NOISE**2)


def _structure(thumbnail: Tensor) -> Tensor:
    coarse = F.adaptive_avg_pool2d(thumbnail[None], thumbnail_size(thumbnail.shape[0], thumbnail.shape[1], CUT_SIDE))[0]
    return coarse - coarse.mean(0, keepdim=True) - coarse.mean(1, keepdim=True) + coarse.mean()


def static_weight(thumbnail: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (h, w) from 0 to 1 of static pixels, and the stationarity of the camera from 0 to 1.

    A motion by x pixels changes the image by x times its gradient (Lucas and Kanade 1981).
    """
    gradient = _box_mean(F.pad(_squared_gradient(past), (1, 1, 1, 1), mode="replicate"))
    change = _box_mean((thumbnail - past).square()[None, None])
    allowed = MAX_MOTION**2 * gradient + _noise_variance(change, gradient)
    static = (2 - change / allowed).clamp(0, 1)
    texture = MAX_MOTION**2 * gradient / allowed  # from 0 to 1: how much a pixel tells about motion
    fraction = (texture * static).sum() / texture.sum().clamp_min(1e-6)
    stationarity = ((fraction - MOVING) / (STATIONARY - MOVING)).clamp(0, 1)
    weight = static * (texture + (1 - texture) * stationarity) * (stationarity > 0)
    return weight[0, 0], stationarity


def _noise_variance(change: Tensor, gradient: Tensor) -> Tensor:
    """Variance of the noise: the change extrapolated to zero gradient, from the pixels below and above its median."""
    is_plain = gradient <= gradient.median()
    (low, low_change), (high, high_change) = (
        [torch.where(half, values, torch.nan).nanmedian() for values in (gradient, change)]
        for half in (is_plain, ~is_plain)
    )
    slope = ((high_change - low_change) / (high - low).clamp_min(1e-12)).clamp_min(0)
    return (low_change - slope * low).clamp_min(MIN_NOISE**2)


def _squared_gradient(image: Tensor) -> Tensor:
    """(1, 1, h - 2, w - 2), by central differences."""
    across = (image[1:-1, 2:] - image[1:-1, :-2]) / 2
    down = (image[2:, 1:-1] - image[:-2, 1:-1]) / 2
    return (across.square() + down.square())[None, None]


def _box_mean(values: Tensor) -> Tensor:
    """Mean over the 5 x 5 pixels around each."""
    return F.avg_pool2d(F.pad(values, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
