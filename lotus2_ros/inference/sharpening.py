"""The detail sharpener on one geometry, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from lotus2_ros.inference.annotations import annotate
from lotus2_ros.inference.geometry import Geometry, sky_of
from lotus2_ros.model.engine.device import Stopwatch, finish
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.reference import Reference, fit_to_reference


class Sharpening:
    """The sharpener's Euler steps on one coarse geometry; made by :meth:`Estimator.sharpen`.

    Call :meth:`step` and do other work in between, or :meth:`result` for the sharp geometry at once, or iterate over it
    for the geometry after every step. The tasks take their steps one task after the other.
    """

    def __init__(
        self, model: GeometryModel, coarse: Geometry, tasks: Sequence[str], steps: int, *, sky: bool = True
    ) -> None:
        if not tasks:
            raise ValueError(
                f"{model.name} has no detail sharpener for {', '.join(coarse.latents) or 'a geometry without latents'}"
            )
        self._model = model
        self._coarse = coarse
        self._sky = sky
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
        """The geometry at the current latents.

        The sharpened disparity has a scale and a shift of its own. It is fitted to the coarse depth, so that the two
        agree, and takes the local field of the coarse geometry.
        """
        coarse, stopwatch = self._coarse, self._stopwatch
        latents = {**coarse.latents, **{task: steps.latent for task, steps in self._steps.items()}}
        with stopwatch("decode"):
            found = annotate(self._model, latents, coarse.image.shape[:2])
        scale = coarse.scale
        with stopwatch("align"):
            # Without the local field, which the sharp geometry takes over.
            line = replace(coarse, scale=replace(scale, local=None)).depth
            if found.disparity is not None and line is not None:
                with suppress(AlignmentError):
                    factor, shift, _ = fit_to_reference(found.disparity, Reference(line))
                    scale = replace(scale, scale=factor, shift=shift, correction=None)
            sky = sky_of(found, scale) if self._sky else None
        return replace(
            coarse,
            stage="sharpener",
            annotations=found,
            sky=sky,
            scale=scale,
            latents=latents,
            stopwatch=stopwatch,
            coarse=coarse,
        )
