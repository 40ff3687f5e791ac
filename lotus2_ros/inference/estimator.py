"""One whole frame without ROS: (image, camera, reference) -> Geometry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.sky import sky_mask
from lotus2_ros.inference.annotations import annotate, deviation
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.model.engine.device import Stopwatch, finish, upload, use_threads
from lotus2_ros.model.engine.runtime import choose_resolution, optimize
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.layers.precision import resolve_products
from lotus2_ros.model.load import load_model
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference, fit_to_reference
from lotus2_ros.scale.scale import Scale, ScaleInput, relative_scale
from lotus2_ros.scale.stats import AlignmentError


class Estimator:
    """A model with everything around it: resize, encode, core predictor, decode, resize back, align.

    It works at ``config.model.process_resolution``, or where that is 0 at ``resolution``, by default the model's own.
    """

    def __init__(self, model: GeometryModel, config: Config, resolution: int | None = None) -> None:
        self.model = model
        self.config = config
        self.device = model.device
        self._resolution = resolution or model.process_resolution
        self._seen: set[tuple[int, int]] = set()

    @property
    def process_resolution(self) -> int:
        """Longer side of the image the model sees, at most, pixels; by area, that of a 4:3 image."""
        return self.config.model.process_resolution or self._resolution

    @torch.inference_mode()
    def predict(
        self,
        image: Tensor,
        camera: Camera | None = None,
        reference: Reference | None = None,
        *,
        tasks: Sequence[str] | None = None,
        scale_filter: ScaleFilter | None = None,
        stamp: float = 0.0,
    ) -> Geometry:
        """Geometry of one image (H, W, 3) uint8 RGB with the core predictor.

        ``camera`` is only needed for points and for a scale from normals; ``reference`` for metres; ``tasks`` defaults
        to the model's; ``scale_filter`` carries the scale from frame to frame of one camera, by their ``stamp`` in
        seconds, without it the image stands alone. Raises ValueError on an image that is not of that shape or too
        small for the model. On a GPU it waits for the scale only: the rest is asked for, and done when it is read.
        """
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an image (H, W, 3) of uint8, got {tuple(image.shape)} of {image.dtype}")
        if camera is not None and (camera.height, camera.width) != tuple(image.shape[:2]):
            raise ValueError(
                f"expected a camera of the image's size {image.shape[1]} x {image.shape[0]}, "
                f"got {camera.width} x {camera.height}"
            )
        tasks = self.model.tasks if tasks is None else tuple(tasks)
        stopwatch = Stopwatch(self.device)
        with stopwatch("resize"):
            image = upload(image, self.device)
            pixels = self._process_image(image)
        with stopwatch("encode"):
            latent = self.model.encode(pixels, self._posterior())
        with stopwatch("core"):
            latents = self.model.cores(latent, tasks)
        with stopwatch("decode"):
            found = annotate(self.model, latents, image.shape[:2])
        if self.config.model.mirror and found.affine is not None and found.uncertainty is None:
            with stopwatch("mirror"):
                answer = found.affine[0]
                answers = torch.stack((answer, self._mirrored(pixels, image.shape[:2])))
                found = replace(found, uncertainty=deviation(answers, answer))
        scale, sky, scale_filter = relative_scale(), None, scale_filter or ScaleFilter()
        if found.affine_depth is not None:
            with stopwatch("align"):
                seen = found.affine_depth, found.normals, camera, reference
                found = found.inverted(scale_filter.inverter.shift_of(*seen, self.config.scale, stamp))
        if found.disparity is not None:
            with stopwatch("align"):
                prediction = ScaleInput(image, found.disparity, found.normals, camera, stamp)
                scale = scale_filter.align(prediction, reference, self.config.scale)
                sky = self._sky(found.disparity, found.normals, scale)
        self._seen.add(self._process_size(*image.shape[:2]))
        return Geometry(image, camera, "core", scale, found, stopwatch, latents, sky)

    @torch.inference_mode()
    def sharpen(
        self, coarse: Geometry, steps: int | None = None, tasks: Sequence[str] | None = None
    ) -> Iterator[Geometry | None]:
        """Run the detail sharpener on a coarse geometry: yields None after every Euler step, then the sharp geometry.

        Of its ``tasks``, by default all; the others and those without a sharpener stay as they are. The sharp disparity
        has a scale and a shift of its own and is fitted to the coarse depth: the two lie on each other.
        """
        stopwatch = Stopwatch(self.device)
        latents = dict(coarse.latents)
        steps = steps or self.config.sharp.steps or self.model.sharpener_steps
        for task, latent in coarse.latents.items():
            if not self.model.has_sharpener(task) or (tasks is not None and task not in tasks):
                continue
            job = self.model.sharpen(latent, task, steps)
            sharp = None
            while sharp is None:
                with stopwatch("sharpen"):
                    sharp = next(job)
                finish(self.device)  # a frame that comes now must not wait behind a queue of steps
                yield None
            latents[task] = sharp
        with stopwatch("decode"):
            found = annotate(self.model, latents, coarse.image.shape[:2])
        scale = coarse.scale
        if found.disparity is not None and coarse.depth is not None:
            with stopwatch("align"), suppress(AlignmentError):
                factor, shift, _ = fit_to_reference(found.disparity, Reference(coarse.depth))
                scale = replace(scale, scale=factor, shift=shift, temporal_residual=None)
        with stopwatch("align"):
            sky = self._sky(found.disparity, found.normals, scale)
        sharpened = replace(coarse, stage="sharpener", annotations=found, sky=sky)
        yield replace(sharpened, scale=scale, latents=latents, stopwatch=stopwatch)

    def _sky(self, disparity: Tensor | None, normals: Tensor | None, scale: Scale) -> Tensor | None:
        """The sky, if it is wanted and both predictions are at hand that it takes."""
        if not self.config.depth.sky or disparity is None or normals is None:
            return None
        return sky_mask(disparity, normals, scale.shift / scale.scale)

    def is_new(self, height: int, width: int) -> bool:
        """Whether no image of this size, or one that the model sees at the same, was predicted so far."""
        return self._process_size(height, width) not in self._seen

    def warm_up(self, height: int, width: int) -> list[tuple[str, Callable[[], None]]]:
        """What is to be run once, so that no frame of this size waits for it: what it is, and a function that does it.

        A GPU compiles and records the model's work when it is first asked for it, anew for each choice of tasks.
        """
        tasks = self.model.tasks
        choices, runs = [tasks], 1
        if self.device.type == "cuda":
            choices = [chosen for n in range(1, len(tasks) + 1) for chosen in combinations(tasks, n)]
            runs = 2  # the second plays what the first recorded
        image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
        coarse: list[Geometry] = []

        def predict(chosen: Sequence[str]) -> None:
            coarse[:] = [self.predict(image, tasks=chosen) for _ in range(runs)]
            finish(self.device)

        def sharpen() -> None:
            for geometry in coarse:
                list(self.sharpen(geometry, steps=1))
            finish(self.device)

        steps: list[tuple[str, Callable[[], None]]] = []
        steps += [(f"core predictor of {' and '.join(chosen)}", partial(predict, chosen)) for chosen in choices]
        if any(map(self.model.has_sharpener, tasks)):
            steps.append(("detail sharpener", sharpen))
        return [(f"{width}x{height} {what}", run) for what, run in steps]

    def _mirrored(self, pixels: Tensor, size: Sequence[int]) -> Tensor:
        """What the model says of depth when it sees the image mirrored, mirrored back: (H, W)."""
        latent = self.model.encode(pixels.flip(-1), self._posterior())
        found = annotate(self.model, self.model.cores(latent, ("depth",)), size)
        assert found.affine is not None
        return found.affine[0].flip(-1)

    def _process_image(self, image: Tensor) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, h, w) float32 in [-1, 1] at the size the model works at."""
        size = self._process_size(image.shape[0], image.shape[1])
        pixels = image.permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=self.model.antialias)
        return resized / 127.5 - 1

    def _process_size(self, height: int, width: int) -> tuple[int, int]:
        return self.model.process_size(height, width, self.process_resolution)

    def _posterior(self) -> torch.Generator | None:
        """None for the mode; a generator, seeded anew for each image, for a sample."""
        if self.config.model.posterior == "mode":
            return None
        return torch.Generator(self.device).manual_seed(self.config.model.seed)


def load_estimator(config: Config, *, live: bool = False) -> Estimator:
    """The model that ``config.model`` names, ready to predict. Raises ValueError if it does not load.

    ``live``: where the configuration leaves the resolution open, take one at which the GPU at hand keeps up with a
    camera. What comes of an image then depends on the GPU, so recordings are not done so. The CPU threads of
    ``config.model.threads`` are then left to the thread that will run the model, too.
    """
    chosen = config.model
    if chosen.threads and not live:
        use_threads(chosen.threads)
    model = load_model(
        chosen.path,
        device=chosen.device,
        dtype=chosen.dtype,
        tasks=chosen.wanted_tasks,
        conditioning=chosen.conditioning,
        samples=chosen.samples,
        seed=chosen.seed,
    )
    optimize(model, compile=chosen.compile, graphs=chosen.compile, products=resolve_products(chosen.dtype))
    return Estimator(model, config, choose_resolution(model) if live else None)
