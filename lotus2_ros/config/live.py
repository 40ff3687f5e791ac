"""The configuration that changes while the node runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lotus2_ros.config.config import Config
from lotus2_ros.config.declaration import ConfigError

ONLY_CAMERA = ""  # the name of the camera of a node that serves one


@dataclass
class LiveConfig:
    """Holds the configuration in force, shared by all threads of the node.

    A change replaces ``current`` as a whole. Read it once per frame, so that a frame sees one configuration.
    """

    current: Config


class CameraConfigs:
    """The common configuration, and that of each camera: the common one, changed by the camera's own values."""

    def __init__(
        self,
        common: Config,
        own: Mapping[str, Mapping[str, Any]] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """``own``: camera -> its values by parameter name. None: a single camera, which has the common ones.
        ``weights``: of the cameras' turns at the model, 1 by default.

        Raises ConfigError on a wrong value.
        """
        self.common = LiveConfig(common)
        self._own = {camera: dict(values) for camera, values in (own or {}).items()}
        self.cameras = {ONLY_CAMERA: self.common}
        if own is not None:
            self.cameras = {camera: LiveConfig(_merged(camera, common, values)) for camera, values in own.items()}
        self.weights = dict.fromkeys(self.cameras, 1.0) | dict(weights or {})

    def update(self, values: Mapping[str, Any]) -> None:
        """Change values: ``scale.source`` is common, ``front.scale.source`` that of the camera ``front``.

        None in place of a camera's own value: the common one from now on. Raises ConfigError and changes nothing if one
        of them is wrong.
        """
        own = {camera: dict(kept) for camera, kept in self._own.items()}
        shared: dict[str, Any] = {}
        for name, value in values.items():
            camera, _, rest = name.partition(".")
            if camera in own:
                own[camera][rest] = value
            else:
                shared[name] = value
        common = self.common.current.updated(shared)
        changed = {camera: _merged(camera, common, kept) for camera, kept in own.items()}
        self.common.current, self._own = common, own
        for camera, config in changed.items():
            self.cameras[camera].current = config


def _merged(camera: str, common: Config, own: Mapping[str, Any]) -> Config:
    try:
        return common.updated({name: value for name, value in own.items() if value is not None})
    except ConfigError as error:
        raise ConfigError(f"{camera}.{error}") from None
