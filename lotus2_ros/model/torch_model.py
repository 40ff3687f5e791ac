"""Models that torch computes: the VAE and the image prior around a network, and the form in which it runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lotus2_ros.model.cache import CachingModule
from lotus2_ros.model.image_size import check_image
from lotus2_ros.model.interface import GeometryModel
from lotus2_ros.model.layers.precision import dtype_name
from lotus2_ros.model.manifest import ModelSettings
from lotus2_ros.model.prior.prior import ImagePrior
from lotus2_ros.model.vae import Vae

# (key, function, *tensors) -> the function's result, see `TorchModel`.
Executor = Callable[..., Tensor]


def run_eagerly(key: tuple, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The default `TorchModel.executor`: call the function."""
    return function(*tensors)


class TorchModel(CachingModule, GeometryModel):
    """A model that torch computes: a VAE, settings and metadata; a subclass adds the network.

    prior: config of an `ImagePrior`, None for none. With one the latent of an image has the C channels of the VAE and
    then F feature channels, like the conditions of FLUX.1 Fill, Depth and Canny. The decoder takes the first C.

    `executor(key, function, *tensors)` runs the encoder, a pass of the network or the decoder. Key and shapes determine
    all of the function's work, so an executor may record it once and replay it.
    """

    def __init__(
        self,
        vae: Vae,
        settings: ModelSettings,
        *,
        latent_multiple: int,
        metadata: Mapping[str, Any] | None,
        prior: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.settings = settings
        self.vae_factor = vae.config.factor
        self.prior = None if prior is None else ImagePrior(prior, self.vae_factor)
        self.multiple = latent_multiple * self.vae_factor
        self.metadata = dict(metadata or {})
        self.executor: Executor = run_eagerly

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype in which the network computes."""

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @property
    def precision(self) -> str:
        return dtype_name(self.dtype)

    @property
    def latent_channels(self) -> int:
        """Of an image's latent, C + F."""
        return int(self.vae.config.latent_channels) + (self.prior.channels if self.prior else 0)

    def dtype_of(self, dtype: torch.dtype) -> Callable[[str], torch.dtype | None]:
        """A function from a parameter's name to its dtype when the model computes in `dtype`; None: as stored.

        VAEs with `force_upcast` in their config overflow float16 and stay in float32.
        """
        vae = torch.float32 if dtype == torch.float16 and self.vae.config.force_upcast else dtype
        return lambda parameter: vae if parameter.startswith("vae.") else dtype

    def hold_channels_last(self) -> None:
        """The layout in which convolutions are fastest."""
        for part in (self.vae, *([self.prior] if self.prior else [])):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        check_image(image, self.multiple)
        if generator is None:
            return self.executor(("encode",), self._encode, image)
        return self._encode(image, generator)

    def _encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.add_features(self.encode_annotation(image, generator), image)

    def add_features(self, latent: Tensor, image: Tensor) -> Tensor:
        """latent (B, C, h, w) of the VAE, image (B, 3, H, W) -> (B, C + F, h, w), with the features of the image."""
        return latent if self.prior is None else torch.cat((latent, self.prior(image).to(latent)), dim=1)

    def carry_features(self, latent: Tensor, given: Tensor) -> Tensor:
        """latent (B, C, h, w) with the features that are behind the first C channels of `given`."""
        if self.prior is None:
            return latent
        features = given[:, latent.shape[1] :][:, : self.prior.channels]
        return torch.cat((latent, features.to(latent)), dim=1)

    def without_features(self, latent: Tensor) -> Tensor:
        """The first C channels."""
        return latent[:, : self.vae.config.latent_channels]

    def encode_annotation(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The VAE's latent alone, as an annotation (B, 3, H, W) in [-1, 1] is given to training."""
        posterior = self.vae.encode(image.to(self.vae.dtype))
        latent = posterior.mean if generator is None else posterior.sample(generator)
        return ((latent - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor).to(self.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        return self.executor(("decode",), self._decode, latent)

    def _decode(self, latent: Tensor) -> Tensor:
        return self.decode_unclamped(latent).clamp(0.0, 1.0)

    def decode_unclamped(self, latent: Tensor) -> Tensor:
        """As :func:`decode`, without the clamp to [0, 1]; training needs the values outside."""
        latent = self.without_features(latent) / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        decoded = self.vae.decode(latent.to(self.vae.dtype))
        # float32 before the clamp: bfloat16 has about 384 values in [0, 1].
        return decoded.float() * 0.5 + 0.5


class InferenceModel(TorchModel):
    """A model in the form in which it runs, which `engine/runtime.py` can make fast.

    `configs`: of its components. `batched`: several tasks of one image go through the network as one batch, where it
    can; on a GPU that is faster.
    """

    configs: Mapping[str, Mapping[str, Any]]
    batched = False

    def decode(self, latent: Tensor) -> Tensor:
        if self.batched or len(latent) == 1:
            return super().decode(latent)
        # One by one, so that an executor prepares the decoder once for any choice of tasks.
        return torch.cat([self.decode(part) for part in latent.split(1)])

    @property
    @abstractmethod
    def linear_precision(self) -> str:
        """How the weights of its linear layers are held and multiplied: one of `linear.PRECISIONS`."""

    @abstractmethod
    def compiled_parts(self) -> Mapping[nn.Module, bool]:
        """The modules worth compiling, and whether one compilation serves all image sizes (True) or each needs one."""

    @abstractmethod
    def on_meta(self, tasks: Sequence[str], precision: str = "float32", sharpeners: bool = True) -> InferenceModel:
        """The same network on the meta device, for some of its tasks, its linear layers in `precision`."""

    # Functions of tensors alone, which `lotus2 export` writes as graphs

    @property
    def noise_channels(self) -> int:
        """Channels of noise behind those of the image's latent in what `core` takes; 0: it takes the latent alone."""
        return 0

    @abstractmethod
    def core(self, latent: Tensor, task: str) -> Tensor:
        """One pass of the core predictor: what the network takes (B, C, h, w) -> annotation latent."""

    def euler_step(self, latent: Tensor, task: str, timestep: Tensor, delta: Tensor) -> Tensor:
        """One step of the sharpener: latent (1, C, h, w) float32 -> the latent, at a timestep (1,) on the model's own
        scale, moved by `delta` (1,), the next noise level minus this one."""
        raise ValueError(f"{self.name} has no detail sharpener for {task}")

    def schedule(self, steps: int, height: int, width: int) -> tuple[list[float], list[float]]:
        """The steps + 1 noise levels of a sharpening of a latent of height x width, and the timestep of each step."""
        raise ValueError(f"{self.name} has no detail sharpener")
