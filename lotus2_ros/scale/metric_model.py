"""Metric depth models of transformers, whose depth is a reference of low weight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.config import ScaleConfig
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.scale.reference import Reference

METRIC_MODEL = "metric_model"  # the source
# Relative standard deviation of the size of what such a model has not seen in training.
DEVIATION = 0.15
IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
SIDE = 384  # where a checkpoint does not say at which size it works
FARTHEST = 1e4  # meters
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


class MetricModel:
    """Metric depth of one image. Made by :func:`load_metric_model`; it is for one thread at a time."""

    def __init__(self, network: Any, preprocessing: Mapping[str, Any]) -> None:
        """``network``: of AutoModelForDepthEstimation; ``preprocessing``: its preprocessor_config.json."""
        self._network = network
        self._preprocessing = preprocessing
        parameter = next(network.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype

    @torch.inference_mode()
    def depth(self, image: Tensor, camera: Camera) -> Tensor:
        """Depth (h, w) in meters along z, at the size that the network works at, of an image (H, W, 3) uint8 RGB."""
        answer = self._network(pixel_values=self._pixels(image)).predicted_depth[0].float()
        if self._network.config.model_type != "depth_pro":
            return answer
        # DepthPro predicts inverse depth for an image as wide as its focal length.
        focal = float(camera.K[0, 0]) / camera.width
        return focal / answer.clamp_min(focal / FARTHEST)

    def reference(self, image: Tensor, camera: Camera, stamp: float) -> Reference:
        """The model's depth as a reference for the frame of ``stamp``, in seconds."""
        return metric_reference(self.depth(image, camera), stamp)

    def _pixels(self, image: Tensor) -> Tensor:
        """(1, 3, h, w), resized and normalized as the checkpoint was trained."""
        options = IMAGENET | {key: value for key, value in self._preprocessing.items() if value is not None}
        pixels = image.to(self._device).permute(2, 0, 1)[None].float() / 255
        size = _size(image.shape[0], image.shape[1], options)
        pixels = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(options[key], device=self._device)[:, None, None] for key in IMAGENET)
        return ((pixels - mean) / std).to(self._dtype)


def metric_reference(depth: Tensor, stamp: float) -> Reference:
    """Depth of a metric model as a reference for the frame of ``stamp``, in seconds."""
    return Reference(depth, stamp, METRIC_MODEL, deviation=DEVIATION)


def load_metric_model(path: str, device: torch.device, *, download: bool = False) -> MetricModel:
    """Load a metric depth model from a folder, or by its name from the local cache of the Hugging Face hub.

    The network is used only with ``download``. The model runs once. Raises ValueError, in one line, if there is no such
    model, if it does not run, or if its depth is relative.
    """
    # Imported here because it takes seconds, and most robots do without.
    from transformers import AutoConfig, AutoModelForDepthEstimation, ImageProcessingMixin

    there = {"local_files_only": not download}
    is_name = HUB_NAME.fullmatch(path) is not None
    try:
        if not is_name and not Path(path).is_dir():
            raise ValueError("there is no such folder")
        config = AutoConfig.from_pretrained(path, **there)
        if getattr(config, "depth_estimation_type", "metric") != "metric":
            raise ValueError("it is a model of relative depth")
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        network = AutoModelForDepthEstimation.from_pretrained(path, dtype=dtype, **there)
        preprocessing, _ = ImageProcessingMixin.get_image_processor_dict(path, **there)
        model = MetricModel(network.eval().to(device), preprocessing)
        gray = torch.full((SIDE, SIDE, 3), 127, dtype=torch.uint8)
        if not bool(torch.isfinite(model.depth(gray, Camera.from_fov(SIDE, SIDE, 60.0))).all()):
            raise ValueError("it gives depth that is not finite")
    except Exception as error:  # of transformers, safetensors and the network, each of its own kind
        reason = str(error).strip().partition("\n")[0]
        advice = (
            "; scale.metric_download:=true downloads it" if is_name and not (download or Path(path).is_dir()) else ""
        )
        raise ValueError(f"scale.metric_model: expected a metric depth model, got {path!r}: {reason}{advice}") from None
    return model


def configured_metric_model(config: ScaleConfig, device: torch.device) -> MetricModel | None:
    """The model of ``scale.metric_model``; None if the scale does not come from one. Raises ValueError."""
    if not config.metric_model or config.source not in ("auto", METRIC_MODEL):
        return None
    return load_metric_model(config.metric_model, device, download=config.metric_download)


def _size(height: int, width: int, options: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width at which the network sees an image, as the image processors of transformers choose it."""
    wanted = options.get("size", SIDE)
    if isinstance(wanted, Mapping):
        tall, wide = wanted.get("height", SIDE), wanted.get("width", SIDE)
    else:
        tall = wide = int(wanted)
    down, across = tall / height, wide / width
    if options.get("keep_aspect_ratio"):
        down = across = min(down, across, key=lambda factor: abs(1 - factor))
    step = options.get("ensure_multiple_of") or options.get("size_divisor") or 1
    return max(step, round(height * down / step) * step), max(step, round(width * across / step) * step)
