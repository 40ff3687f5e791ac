"""Surface normals.

Convention: unit vectors in the camera optical frame (x right, y down, z forward; REP-103) that point toward the camera:
a wall that faces the camera has (0, 0, -1), a floor seen from above (0, -1, 0).
"""

from __future__ import annotations

import torch
from torch import Tensor

# The model's axes are x left, y up, z toward the camera: all three are the optical frame's, negated.
MODEL_TO_OPTICAL = -1.0


def normalize(normals: Tensor) -> Tensor:
    """Unit length along the last dimension; NaN where a vector has no direction (shorter than 1e-6)."""
    length = normals.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-6, normals / length, torch.nan)


def normals_to_color(normals: Tensor) -> Tensor:
    """The customary picture of normals (..., 3), uint8 RGB: left red, up green, toward the camera blue, NaN black."""
    color = ((MODEL_TO_OPTICAL * normals + 1) * 127.5).round()
    return torch.nan_to_num(color, nan=0.0).clamp(0, 255).to(torch.uint8)
