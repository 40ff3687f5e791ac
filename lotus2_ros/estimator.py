"""One whole frame without ROS: (image, camera, reference) -> Geometry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.geometry.alignment import AlignmentError
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.depth import disparity_to_depth
from lotus2_ros.geometry.normals import MODEL_TO_OPTICAL, normalize
from lotus2_ros.geometry.scale import Aligner, Reference, Scale, fit_to_reference, relative_scale
from lotus2_ros.model import checkpoint
from lotus2_ros.model.lotus2 import Lotus2, process_size


@dataclass(frozen=True)
class Geometry:
    """What is known of one image. Tensors are on the model's device, at the image's size (H, W)."""

    image: Tensor  # (H, W, 3) uint8 RGB
    camera: Camera | None
    stage: str  # core | sharpener
    scale: Scale
    disparity: Tensor | None  # (H, W) float32 in [0, 1], affine-invariant, 1 = near
    normals: Tensor | None  # (H, W, 3) float32, unit, optical frame, toward the camera
    latency: dict[str, float]  # seconds per stage, in order
    latents: dict[str, Tensor] = field(repr=False, default_factory=dict)  # clean annotation latents by task
    reference: Reference | None = field(repr=False, default=None)

    @cached_property
    def depth(self) -> Tensor | None:
        """(H, W) float32 along z: metres if ``scale.metric``, else up to one unknown factor; NaN invalid."""
        if self.disparity is None:
            return None
        return disparity_to_depth(self.disparity, self.scale.scale, self.scale.shift)

    @cached_property
    def points(self) -> Tensor | None:
        """(H, W, 3) float32 in the optical frame, in the unit of ``depth``; NaN invalid. None without a camera."""
        if self.depth is None or self.camera is None:
            return None
        return self.camera.unproject(self.depth)


class Estimator:
    """A model with everything around it: resize, encode, core predictor, decode, resize back, align."""

    def __init__(self, model: Lotus2, config: Config) -> None:
        self.model = model
        self.config = config
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def predict(
        self,
        image: Tensor,
        camera: Camera | None = None,
        reference: Reference | None = None,
        *,
        tasks: Sequence[str] | None = None,
        aligner: Aligner | None = None,
        stamp: float = 0.0,
    ) -> Geometry:
        """Geometry of one image (H, W, 3) uint8 RGB with the core predictor.

        ``camera`` is only needed for points; ``tasks`` defaults to the model's; ``aligner`` carries the scale from
        frame to frame of one camera, without it the image stands alone. Raises ValueError on an image that is not of
        that shape or too small for the model.
        """
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an image (H, W, 3) of uint8, got {tuple(image.shape)} of {image.dtype}")
        if camera is not None and (camera.height, camera.width) != tuple(image.shape[:2]):
            raise ValueError(
                f"expected a camera of the image's size {image.shape[1]} x {image.shape[0]}, "
                f"got {camera.width} x {camera.height}"
            )
        tasks = self.model.tasks if tasks is None else tuple(tasks)
        latency: dict[str, float] = {}
        with self._timed(latency, "resize"):
            image = image.to(self.device)
            pixels = self._process_image(image)
        with self._timed(latency, "encode"):
            latent = self.model.encode(pixels, self._posterior())
        with self._timed(latency, "core"):
            latents = {task: self.model.core(latent, task) for task in tasks}
        with self._timed(latency, "decode"):
            disparity, normals = self._decode(latents, image.shape[:2])
        scale = relative_scale(self.config.scale)
        if disparity is not None:
            with self._timed(latency, "align"):
                scale = (aligner or Aligner()).align(disparity, reference, stamp, self.config.scale)
        return Geometry(image, camera, "core", scale, disparity, normals, latency, latents, reference)

    @torch.inference_mode()
    def sharpen(self, coarse: Geometry, steps: int | None = None) -> Iterator[Geometry | None]:
        """Run the detail sharpener on a coarse geometry: yields None after every Euler step, then the sharp geometry.

        Tasks without a sharpener stay as they are. The sharp disparity is fitted anew, to the frame's own reference or
        else to the coarse depth: an affine-invariant disparity has a scale and a shift of its own.
        """
        latency: dict[str, float] = {}
        latents = dict(coarse.latents)
        steps = steps or self.config.sharp.steps or self.model.sharpener_steps
        for task, latent in coarse.latents.items():
            if not self.model.has_sharpener(task):
                continue
            job = self.model.sharpen(latent, task, steps)
            sharp = None
            while sharp is None:
                with self._timed(latency, "sharpen"):
                    sharp = next(job)
                yield None
            latents[task] = sharp
        with self._timed(latency, "decode"):
            disparity, normals = self._decode(latents, coarse.image.shape[:2])
        scale = coarse.scale
        if disparity is not None and coarse.depth is not None:
            own = coarse.reference if scale.metric else None
            with self._timed(latency, "align"), suppress(AlignmentError):
                fit = fit_to_reference(disparity, own or Reference(coarse.depth))
                scale = replace(scale, scale=fit.scale, shift=fit.shift)
        sharpened = replace(coarse, stage="sharpener", disparity=disparity, normals=normals)
        yield replace(sharpened, scale=scale, latents=latents, latency=latency)

    def _process_image(self, image: Tensor) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, h, w) float32 in [-1, 1] at the size the model works at."""
        resolution = self.config.model.process_resolution or self.model.process_resolution
        size = process_size(image.shape[0], image.shape[1], resolution, self.model.multiple)
        pixels = image.permute(2, 0, 1)[None].float() / 127.5 - 1
        return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=self.model.antialias)

    def _posterior(self) -> torch.Generator | None:
        """None for the mode; a generator, seeded anew for each image, for a sample."""
        if self.config.model.posterior == "mode":
            return None
        return torch.Generator(self.device).manual_seed(self.config.model.seed)

    def _decode(self, latents: dict[str, Tensor], size: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """Disparity (H, W) and normals (H, W, 3) of the tasks at hand, at the image's ``size``."""
        disparity = normals = None
        for task, latent in latents.items():
            decoded = self.model.decode(latent)
            pixels = F.interpolate(decoded, tuple(size), mode="bilinear", align_corners=False)[0]
            if task == "depth":
                disparity = pixels.mean(dim=0)
            else:
                # Length 1 only after resizing: means of unit vectors are shorter.
                normals = normalize(MODEL_TO_OPTICAL * (2 * pixels.permute(1, 2, 0) - 1))
        return disparity, normals

    @contextmanager
    def _timed(self, latency: dict[str, float], stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        latency[stage] = latency.get(stage, 0.0) + time.perf_counter() - start


def load_estimator(config: Config) -> Estimator:
    """The model that ``config.model`` names, ready to predict. Raises ValueError if it does not load."""
    chosen = config.model
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    model = checkpoint.load(
        chosen.path, device=chosen.device, dtype=chosen.dtype, tasks=chosen.tasks, conditioning=chosen.conditioning
    )
    return Estimator(model.eval(), config)
