"""The size at which an image is processed."""

from __future__ import annotations

import math

from torch import Tensor


class ImageSizeError(ValueError):
    """The image is too small for the model."""


def process_size(
    height: int, width: int, resolution: int, multiple: int, *, upscale: bool = False, by_area: bool = False
) -> tuple[int, int]:
    """The size (height, width) at which an image is processed.

    The longer side is reduced to `resolution` if it is larger; with `upscale` it is also enlarged if it is smaller.
    Then the shorter side is rounded down to a multiple of `multiple`; the longer side is scaled with it and rounded
    down too. With `by_area` a 4:3 image gets `resolution` as its longer side, and an image of another shape the same
    number of pixels, so that wide images lose no more detail than others.
    """
    longer = max(height, width)
    if by_area:
        resolution = math.isqrt(resolution**2 * 3 * longer // (4 * max(1, min(height, width))))
    if longer > resolution or upscale:
        height, width = height * resolution // longer, width * resolution // longer
    shorter = min(height, width)
    fitted = shorter // multiple * multiple
    if fitted == 0:
        raise ImageSizeError(
            f"image too small: expected at least {multiple} px at processing size, got a shorter side of {shorter} px"
        )
    return height * fitted // shorter // multiple * multiple, width * fitted // shorter // multiple * multiple


def check_image(image: Tensor, multiple: int) -> None:
    """Raise ValueError unless an image has the shape that `GeometryModel.encode` takes."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"expected an image of shape (B, 3, H, W), got {tuple(image.shape)}")
    if any(side == 0 or side % multiple for side in image.shape[2:]):
        raise ValueError(f"expected sides that are multiples of {multiple}, got {tuple(image.shape[2:])}")
