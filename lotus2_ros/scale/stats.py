"""What every alignment says of itself beside its result."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class AlignmentError(ValueError):
    """The data do not determine a scale and a shift."""


@dataclass(frozen=True)
class FitStats:
    """What a fit stands on. Tensors of the batch's shape; a refused fit's scale and shift are NaN."""

    points: Tensor  # measurements used
    inlier_fraction: Tensor  # share of them that agrees
    residual: Tensor  # typical error of those, as the fit's docstring says
    refusal: Tensor  # int64, which of `reasons`; 0: none, the fit holds
    reasons: tuple[str, ...]  # the first is empty

    def check(self) -> None:
        """Raises AlignmentError with the reason of the first fit that is refused."""
        refused = self.refusal.flatten().tolist()
        for item, reason in enumerate(refused):
            if reason:
                points, share = self.points.flatten()[item], self.inlier_fraction.flatten()[item]
                found = f"{int(points)} points" + (
                    f", {100 * float(share):.0f} % agree" if torch.isfinite(share) else ""
                )
                raise AlignmentError(f"{self.reasons[reason]}, got {found}")
