"""The keys of an image prior, in a bundle and in a training run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lotus2_ros.model.manifest import Section
from lotus2_ros.model.prior.prior import ImagePrior
from lotus2_ros.model.prior.published import read_backbone

CHANNELS = Field(ge=1, le=65536)


class PriorSection(Section):
    """See `ImagePrior`."""

    backbone: str
    hidden: int = CHANNELS
    channels: int = CHANNELS
    patch: Literal[1, 2]


class PriorNetwork(BaseModel):
    """A backbone, with its published weights if `pretrained`, frozen; hidden units of the perceptron behind it, which
    is trained; feature channels. See `ImagePrior`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Literal["efficientnet-lite0"]
    hidden: int = Field(ge=1)
    channels: int = Field(ge=1)
    pretrained: bool = True

    def config(self, patch: int) -> dict[str, Any]:
        """Of an `ImagePrior`."""
        return self.model_dump(exclude={"pretrained"}) | {"patch": patch}

    def read_weights(self, prior: ImagePrior) -> None:
        """Give the backbone of a new model its published weights. Raises ValueError where they are not installed."""
        if self.pretrained:
            prior.backbone.load_state_dict(read_backbone(self.backbone))
