"""The detail sharpener on one geometry, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from lotus2_ros.inference.alignment import align_sharp
from lotus2_ros.inference.annotations import annotate
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.upsampling import BY_COLOR
from lotus2_ros.model.engine.device import Stopwatch, finish
from lotus2_ros.model.interface import GeometryModel


class Sharpening:
    """The sharpener's Euler steps on one coarse geometry; made by :meth:`Estimator.sharpen`.

    Call :meth:`step` and do other work in between, or :meth:`result` for the sharp geometry at once, or iterate over it
    for the geometry after every step. The tasks take their steps one task after the other.
    """

    def __init__(
        self, model: GeometryModel, coarse: Geometry, tasks: Sequence[str], steps: int, *, sky: bool, guided: bool
    ) -> None:
        if not tasks:
            raise ValueError(
                f"{model.name} has no detail sharpener for {', '.join(coarse.latents) or 'a geometry without latents'}"
            )
        self._model = model
        self._coarse = coarse
        self._sky = sky
        self._guidance = BY_COLOR if guided else None
        self._stopwatch = Stopwatch(model.device)
        self._steps = {task: model.sharpen(coarse.latents[task], task, steps) for task in tasks}
        self._result: Geometry | None = None

    @property
    def done(self) -> bool:
        """Whether no step remains."""
        return all(steps.done for steps in self._steps.values())

    @torch.inference_mode()
    def step(self) -> bool:
        """Run one Euler step of one task and wait for the device; True while steps remain."""
        current = next((steps for steps in self._steps.values() if not steps.done), None)
        if current is not None:
            with self._stopwatch("sharpen"):
                current.step()
            # A frame that arrives now must not wait behind a queue of steps.
            finish(self._model.device)
        return not self.done

    def result(self) -> Geometry:
        """The sharp geometry; runs the steps that remain. Decoded and aligned once, then kept."""
        while self.step():
            pass
        if self._result is None:
            self._result = self._geometry()
        return self._result

    def __iter__(self) -> Iterator[Geometry]:
        """The geometry after each step that remains; the last one is the result."""
        while not self.done:
            yield self._geometry() if self.step() else self.result()

    @torch.inference_mode()
    def _geometry(self) -> Geometry:
        """The geometry at the current latents."""
        latents = {**self._coarse.latents, **{task: steps.latent for task, steps in self._steps.items()}}
        with self._stopwatch("decode"):
            found = annotate(self._model, latents, self._coarse.image, guidance=self._guidance)
        with self._stopwatch("align"):
            sharp = align_sharp(self._coarse, found, sky=self._sky)
        return replace(sharp, latents=latents, stopwatch=self._stopwatch)
