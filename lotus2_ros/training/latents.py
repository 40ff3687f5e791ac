"""Latents of batches: encoding, their scale, and errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.torch_model import TorchModel
from lotus2_ros.training.batches import Batch


def encode(model: TorchModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Latents of the images, (B, C, h, w), or (B, C + F, h, w) with the F features of a prior, and of their
    annotations, (B, C, h, w). The prior may be trained."""
    with torch.no_grad():
        both = model.encode_annotation(torch.cat((batch.image, batch.annotation)))
        image, truth = both.to(model.vae.dtype).chunk(2)
    return model.add_features(image, batch.image), truth


def mean_square(error: Tensor, model: TorchModel, batch: Batch) -> Tensor:
    """The mean square of an error (B, C, h, w) over the latent pixels whose image pixels are all valid."""
    valid = latent_valid(batch.valid, model.vae_factor)
    return (error.float().square() * valid).sum() / (valid.sum() * error.shape[1]).clamp_min(1)


def latent_valid(valid: Tensor, factor: int) -> Tensor:
    """valid (B, 1, H, W) bool -> (B, 1, H/factor, W/factor) float: 1 where every pixel of the square is valid."""
    return 1 - F.max_pool2d((~valid).float(), factor)


def measure_latents(model: TorchModel, batches: Sequence[Batch]) -> None:
    """Set the VAE's shift and scale so that latents of images and annotations have mean 0 and standard deviation 1."""
    model.vae.scale_latents(shift=0.0, scale=1.0)
    pictures = (each for batch in batches for each in (batch.image, batch.annotation))
    with torch.no_grad():
        latents = torch.cat([model.encode_annotation(each.to(model.device)).flatten() for each in pictures])
    model.vae.scale_latents(shift=float(latents.mean()), scale=1 / float(latents.std()))
