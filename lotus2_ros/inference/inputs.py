"""The inputs of the estimator, checked and converted to tensors."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lotus2_ros.config.errors import InputError
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.image_files import read_rgb
from lotus2_ros.scale.reference import Reference

# A path, a PIL image (not imported for its type alone), an array (H, W, 3) of uint8 RGB or a tensor of the same.
ImageInput: TypeAlias = "str | os.PathLike[str] | np.ndarray | Tensor | Any"
# Depth (H, W) or points (N, 3) in meters, or either with its stamp and source.
ReferenceInput: TypeAlias = "Reference | np.ndarray | Tensor"


def as_image(image: ImageInput) -> Tensor:
    """The image (H, W, 3) uint8 RGB. Raises InputError on another shape or type, and as :func:`read_rgb` on a path."""
    if isinstance(image, str | os.PathLike):
        return torch.from_numpy(read_rgb(image))
    if hasattr(image, "convert"):  # a PIL image, of any mode
        image = np.array(image.convert("RGB"))
    if not isinstance(image, np.ndarray | Tensor):
        raise InputError(f"expected an image as a path, a PIL image, an array or a tensor, got {type(image).__name__}")
    shape = tuple(image.shape)
    if image.dtype not in (np.uint8, torch.uint8) or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(f"expected an image (H, W, 3) of uint8, got {shape} of {image.dtype}{_advice(image)}")
    return image if isinstance(image, Tensor) else _tensor(image)


def as_reference(reference: ReferenceInput | None, camera: Camera | None) -> Reference | None:
    """Depth (H, W) in meters along z, 0, NaN or Inf where unknown; or points (N, 3) in the camera's optical frame.

    Depth may have another size than the image, as long as it shows the same view. Raises ValueError on another shape or
    on integers, and on points without a camera.
    """
    if reference is None or isinstance(reference, Reference):
        return reference
    if not isinstance(reference, np.ndarray | Tensor):
        raise ValueError(f"expected a reference as an array or a tensor, got {type(reference).__name__}")
    return Reference.of(reference if isinstance(reference, Tensor) else _tensor(reference), camera)


def check_camera(camera: Camera | None, image: Tensor) -> None:
    """Raise ValueError if the camera is not of the image's size."""
    height, width = image.shape[:2]
    if camera is not None and (camera.height, camera.width) != (height, width):
        raise ValueError(
            f"expected a camera of the image's size {width} x {height}, got {camera.width} x {camera.height}; "
            "use camera.resize(width, height) for a resized image"
        )


def _advice(image: np.ndarray | Tensor) -> str:
    """The end of an error about an image of the wrong shape or type: how to convert it."""
    shape = tuple(image.shape)
    if "float" in str(image.dtype):
        return "; multiply by 255 and convert to uint8 if its values are in [0, 1]"
    if len(shape) == 4:
        return "; pass one image at a time"
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        return "; repeat the channel of a gray image three times"
    if len(shape) == 3 and shape[2] == 4:
        return "; drop the alpha channel"
    if len(shape) == 3 and shape[0] == 3:
        return "; move the channels last"
    return ""


def _tensor(array: np.ndarray) -> Tensor:
    """The array's memory where torch can share it, else a copy: torch takes no negative strides, and warns of arrays
    that are not writeable."""
    if array.dtype.kind == "u" and array.dtype != np.uint8:  # not in every version of torch
        array = array.astype(np.int64)
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
