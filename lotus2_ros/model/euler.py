"""Euler steps of a rectified flow, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor


class EulerSteps:
    """A latent on its way along a flow, moved by one Euler step per call so that other work can run in between.

    ``latent`` (B, C, h, w) is where it starts; ``move(latent, sigma, following)`` gives the latent at the noise level
    ``following`` from the one at ``sigma``, both float32; ``sigmas`` are the noise levels in order, one more than there
    are steps.
    """

    def __init__(self, latent: Tensor, move: Callable[[Tensor, float, float], Tensor], sigmas: Sequence[float]) -> None:
        self._dtype = latent.dtype
        self._latent = latent.float()
        self._move = move
        self._sigmas = list(sigmas)

    @property
    def latent(self) -> Tensor:
        """The latent after the steps so far, in the dtype it started in."""
        return self._latent.to(self._dtype)

    @property
    def done(self) -> bool:
        return len(self._sigmas) < 2

    def step(self) -> bool:
        """Run one step; True while steps remain. Once done, it does nothing."""
        if not self.done:
            self._latent = self._move(self._latent, *self._sigmas[:2])
            del self._sigmas[0]
        return not self.done

    def result(self) -> Tensor:
        """Run the steps that remain and return the latent."""
        while self.step():
            pass
        return self.latent
