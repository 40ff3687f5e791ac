"""How many of the points around a point agree with it: wrong points of a reference have few."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Candidates for neighbors: this many before and after each point on the curve.
AROUND = 16
CURVE_BITS = 7  # of the numbers of rows and columns
# Their weight falls to 1 / e at this many mean distances between points; a depth edge is as far as this many widths.
REACH, EDGE = 1.5, 0.06
AGREEMENT = 0.1  # of log depth; agreement falls to 1 / e at this difference
FAR_AWAY = 1e3  # place of padding


def support(v: Tensor, u: Tensor, depth: Tensor, residual: Tensor, width: int) -> Tensor:
    """Agreement (N,) of each point with those around, relative to the median point's.

    The points around are the next ones on a Z-order curve (Morton 1966), so that the cost is linear in N. They count
    less the farther away they are.

    Args:
        v, u: (N,) cells of a grid that is ``width`` cells wide.
        depth: (N,) the feature that differs by 1 at an edge.
        residual: (N,) of log depth.
    """
    code = torch.zeros_like(v)
    for bit in range(CURVE_BITS):
        code += ((u >> bit & 1) << 2 * bit) + ((v >> bit & 1) << 2 * bit + 1)
    order = code.argsort()
    points = torch.stack((v / width, u / width, EDGE * depth, residual))[:, order]
    around = F.pad(points[None], (AROUND, AROUND), value=FAR_AWAY)[0].unfold(1, 2 * AROUND + 1, 1)
    difference = around - points[..., None]
    distance = difference[:-1].square().sum(0).sqrt() * (2 * len(v)) ** 0.5
    weight = (-distance / REACH).exp()
    weight[:, AROUND] = 0  # the point itself
    agreeing = (weight * (difference[-1].abs() / -AGREEMENT).exp()).sum(1) / weight.sum(1).clamp_min(1e-9)
    relative = agreeing / agreeing.median().clamp_min(1e-9)
    return torch.empty_like(relative).index_put((order,), relative)
