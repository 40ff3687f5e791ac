"""The keys of a Lotus-D or Lotus-G bundle's `bundle.json`."""

from __future__ import annotations

from typing import Annotated, Any

from diffusers import UNet2DConditionModel
from pydantic import Field

from lotus2_ros.model.components import config_of
from lotus2_ros.model.manifest import Manifest, Section
from lotus2_ros.model.prior.config import PriorSection
from lotus2_ros.model.vae import VaeConfig

Length = Annotated[int, Field(ge=1, le=65536)]


class LotusComponents(Section):
    vae: VaeConfig
    unet: config_of(UNet2DConditionModel)  # type: ignore[valid-type]
    prior: PriorSection | None = None


class LotusManifest(Manifest):
    """`prompt_shape`: tokens and channels of the empty prompt's embedding."""

    prompt_shape: tuple[Length, Length]
    components: LotusComponents

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        configs = self.components.model_dump()
        return configs if self.components.prior else {name: configs[name] for name in ("vae", "unet")}
