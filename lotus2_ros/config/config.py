"""All parameters together: checked, changed, and by their names."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, cast

from lotus2_ros.config.declaration import ConfigError, check, of_yaml
from lotus2_ros.config.parameters import (
    CloudConfig,
    DepthConfig,
    InputConfig,
    ModelConfig,
    NodeConfig,
    ScaleConfig,
    SharpConfig,
)

log = logging.getLogger(__name__)

_announced: set[str] = set()  # former names that were warned about


@dataclass(frozen=True)
class Config:
    """All groups of parameters."""

    model: ModelConfig = field(default_factory=ModelConfig)
    input: InputConfig = field(default_factory=InputConfig)
    sharp: SharpConfig = field(default_factory=SharpConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    node: NodeConfig = field(default_factory=NodeConfig)

    def __post_init__(self) -> None:
        for name, item in walk():
            group, _, key = name.partition(".")
            check(name, item, getattr(getattr(self, group), key))
        low, high = self.cloud.min_depth, self.cloud.max_depth
        if 0 < high < low:
            raise ConfigError(f"cloud.min_depth: expected at most cloud.max_depth ({high:g}), got {low:g}")

    def updated(self, values: Mapping[str, Any]) -> Config:
        """A copy with ``{"group.field": value}`` changed; a parameter's former name works too.

        Values are as YAML gives them. Raises ConfigError on an unknown name or a wrong value.
        """
        items = dict(walk())
        groups: dict[str, dict[str, Any]] = {}
        for name, value in current_names(values).items():
            if name not in items:
                raise unknown(name)
            group, _, key = name.partition(".")
            groups.setdefault(group, {})[key] = check(name, items[name], of_yaml(items[name], value))
        return replace(self, **{group: replace(getattr(self, group), **kw) for group, kw in groups.items()})

    def values(self) -> dict[str, Any]:
        """All parameters as ``{"group.field": value}``, in order of declaration."""
        return {name: getattr(getattr(self, name.split(".")[0]), name.split(".")[1]) for name, _ in walk()}


def walk() -> Iterator[tuple[str, Field]]:
    """Every parameter as (``group.field``, dataclass field), in order of declaration."""
    for group in fields(Config):
        for item in fields(cast(type, group.default_factory)):
            yield f"{group.name}.{item.name}", item


def unknown(name: str) -> ConfigError:
    """The error about a parameter that does not exist, with the nearest name that does."""
    near = get_close_matches(name, [known for known, _ in walk()], n=1, cutoff=0.0)[0]
    return ConfigError(f"unknown parameter {name}; did you mean {near}?")


def aliases() -> dict[str, str]:
    """Former name -> present name of each renamed parameter."""
    return {item.metadata["alias"]: name for name, item in walk() if item.metadata["alias"]}


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with every former name replaced by the present one.

    Logs one warning for each former name in the life of the process. Raises ConfigError if both names are given.
    """
    renamed = aliases()
    for old in renamed.keys() & values.keys():
        new = renamed[old]
        if new in values:
            raise ConfigError(f"expected {new} alone, got it together with its former name {old}; remove {old}")
        if old not in _announced:
            _announced.add(old)
            log.warning("parameter %s is now called %s; the old name still works", old, new)
    return {renamed.get(name, name): value for name, value in values.items()}
