"""One frame without ROS: image, camera and reference in, geometry out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.alignment import align
from lotus2_ros.inference.annotations import annotate, deviation
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.inference.inputs import ImageInput, ReferenceInput, as_image, as_reference, check_camera
from lotus2_ros.inference.sharpening import Sharpening
from lotus2_ros.inference.upsampling import BY_GRAY, Guidance
from lotus2_ros.model.engine.device import Stopwatch, finish, upload
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.metric_model import MetricModel
from lotus2_ros.scale.scale import relative_scale


class Estimator:
    """A model and everything around it: resize, encode, core predictor, decode, resize back, align.

    Made by `lotus2_ros.load`. It is for one thread at a time.
    """

    def __init__(
        self,
        model: GeometryModel,
        config: Config,
        resolution: int | None = None,
        metric_model: MetricModel | None = None,
    ) -> None:
        """
        Args:
            resolution: what the model works at where ``config.model.process_resolution`` is 0; None: the model's own.
            metric_model: of the scale source of that name.
        """
        self.model = model
        self.metric_model = metric_model
        self.config = config
        self.device = model.device
        self._resolution = resolution or model.settings.process_resolution
        self._seen: set[tuple[int, int]] = set()

    def with_config(self, config: Config) -> Estimator:
        """An estimator with the same model and another configuration, for another camera; for the same thread."""
        other = copy(self)
        other.config = config
        return other

    @property
    def process_resolution(self) -> int:
        """Longer side in pixels at which the model sees an image; of a 4:3 image, if the model sizes them by area."""
        return self.config.model.process_resolution or self._resolution

    @torch.inference_mode()
    def predict(
        self,
        image: ImageInput,
        camera: Camera | None = None,
        reference: ReferenceInput | None = None,
        *,
        tasks: Sequence[str] | None = None,
        scale_filter: ScaleFilter | None = None,
        stamp: float = 0.0,
        with_sigma: bool = True,
    ) -> Geometry:
        """Geometry of one image with the core predictor.

        Args:
            image: path of an image file, PIL image, or array or tensor (H, W, 3) of uint8 RGB.
            camera: of an image of this size. Points need it, and depth that has the scene's shape without a reference.
            reference: makes depth metric. Depth (H, W) in meters along z, 0 or NaN where unknown, maybe sparse and of
                another resolution; or points (N, 3) in meters in the camera's optical frame (x right, y down, z
                forward).
            tasks: some of the model's tasks, by default all.
            scale_filter: keeps the scale steady over the frames of one camera; without it the image stands alone, and
                the metric model is asked where there is one and no reference.
            stamp: time of the image in seconds, for the filter.
            with_sigma: whether :attr:`Geometry.sigma` will be read.

        Raises ValueError on an image, a camera or a reference of another shape or type, and on an image that is too
        small for the model; FileNotFoundError on a missing file. On a GPU it waits only until the scale is known; what
        is left is done by the time it is read.
        """
        image = as_image(image)
        reference = as_reference(reference, camera)
        check_camera(camera, image)
        if self.metric_model is not None and scale_filter is None and reference is None and camera is not None:
            reference = self.metric_model.reference(image, camera, stamp)
        geometry = self.unaligned(image, camera, tasks)
        return align(geometry, reference, scale_filter or ScaleFilter(), stamp, self.config, with_sigma=with_sigma)

    @torch.inference_mode()
    def unaligned(self, image: Tensor, camera: Camera | None = None, tasks: Sequence[str] | None = None) -> Geometry:
        """The prediction for an image (H, W, 3) uint8 alone: the part of :meth:`predict` before :func:`align`."""
        tasks = self.model.tasks if tasks is None else tuple(tasks)
        size = image.shape[:2]
        stopwatch = Stopwatch(self.device)
        with stopwatch("resize"):
            image = upload(image, self.device)
            pixels = self._process_image(image)
        with stopwatch("encode"):
            latent = self.model.encode(pixels, self._posterior())
        with stopwatch("core"):
            latents = self.model.predict(latent, tasks)
        with stopwatch("decode"):
            found = annotate(self.model, latents, image, guidance=self._guidance)
        if self.config.model.mirror and len(latents.get("depth", ())) == 1:  # in place of what the model says of itself
            with stopwatch("mirror"):
                assert found.affine is not None
                answer = found.affine[0]
                answers = torch.stack((answer, self._mirrored(pixels, image)))
                found = replace(found, uncertainty=deviation(answers, answer))
        self._seen.add(self._process_size(*size))
        return Geometry(image, camera, "core", relative_scale(), found, stopwatch, latents)

    def sharpen(self, geometry: Geometry, steps: int | None = None, tasks: Sequence[str] | None = None) -> Sharpening:
        """The detail sharpener on a geometry of :meth:`predict`, none of its steps run yet.

        Args:
            steps: Euler steps per task; None or 0: those of the parameter ``sharp.steps``, else the model's own.
            tasks: some of the geometry's, by default those of the parameter ``sharp.tasks``. Tasks without a sharpener
                stay as they are.

        Raises ValueError if no task is left.
        """
        wanted = self.config.sharp.refines if tasks is None else set(tasks).__contains__
        return Sharpening(
            self.model,
            geometry,
            [task for task in geometry.latents if wanted(task) and self.model.has_sharpener(task)],
            steps or self.config.sharp.steps or self.model.settings.sharpener_steps,
            sky=self.config.depth.sky,
            guided=self._guided,
        )

    def refines(self, task: str) -> bool:
        """Whether the sharpener refines a task: there is one for it, and ``sharp.tasks`` has it."""
        return self.model.has_sharpener(task) and self.config.sharp.refines(task)

    @property
    def _guided(self) -> bool:
        """Whether the edges of depth follow those of the image."""
        wanted = self.config.depth.guided
        return self.model.settings.guided if wanted == "auto" else wanted == "yes"

    @property
    def _guidance(self) -> Guidance | None:
        return BY_GRAY if self._guided else None

    def is_new(self, height: int, width: int) -> bool:
        """Whether no image of this processing size was predicted yet."""
        return self._process_size(height, width) not in self._seen

    def warm_up(self, height: int, width: int) -> list[tuple[str, Callable[[], None]]]:
        """Work to run once so that no frame of this size has to wait for it: names and functions.

        On a GPU the model is compiled and its CUDA graphs are recorded at the first call for each choice of tasks.
        Raises ImageSizeError if the model does not take images of this size.
        """
        self._process_size(height, width)
        tasks = self.model.tasks
        choices, runs = [tasks], 1
        if self.device.type == "cuda":
            choices = [chosen for n in range(1, len(tasks) + 1) for chosen in combinations(tasks, n)]
            runs = 2  # the first records the graphs, the second replays them
        image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
        coarse: list[Geometry] = []

        def predict(chosen: Sequence[str]) -> None:
            coarse[:] = [self.predict(image, tasks=chosen) for _ in range(runs)]
            finish(self.device)

        def sharpen() -> None:
            for geometry in coarse:
                self.sharpen(geometry, steps=1, tasks=list(geometry.latents)).result()
            finish(self.device)

        steps: list[tuple[str, Callable[[], None]]] = []
        steps += [(f"core predictor of {' and '.join(chosen)}", partial(predict, chosen)) for chosen in choices]
        if any(map(self.model.has_sharpener, tasks)):
            steps.append(("detail sharpener", sharpen))
        return [(f"{width}x{height} {what}", run) for what, run in steps]

    def _mirrored(self, pixels: Tensor, image: Tensor) -> Tensor:
        """Test-time flip: the depth output (H, W) of the mirrored image, mirrored back."""
        latent = self.model.encode(pixels.flip(-1), self._posterior())
        found = annotate(self.model, self.model.predict(latent, ("depth",)), image.flip(1), guidance=self._guidance)
        assert found.affine is not None
        return found.affine[0].flip(-1)

    def _process_image(self, image: Tensor) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, h, w) float32 in [-1, 1] at the size the model works at."""
        size = self._process_size(image.shape[0], image.shape[1])
        pixels = image.permute(2, 0, 1)[None].float()
        resized = F.interpolate(
            pixels, size, mode="bilinear", align_corners=False, antialias=self.model.settings.antialias
        )
        return resized / 127.5 - 1

    def _process_size(self, height: int, width: int) -> tuple[int, int]:
        return self.model.process_size(height, width, self.process_resolution)

    def _posterior(self) -> torch.Generator | None:
        """None for the mode; for a sample, a generator with the same seed for each image."""
        if self.config.model.posterior == "mode":
            return None
        return torch.Generator(self.device).manual_seed(self.config.model.seed)
