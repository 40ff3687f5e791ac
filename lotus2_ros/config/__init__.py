"""Every parameter, declared once, and what ROS, YAML, the command line and the docs make of it."""

from lotus2_ros.config.config import Config, aliases, current_names, unknown, walk
from lotus2_ros.config.declaration import NONE, ConfigError, add_option, check, is_yes_or_no
from lotus2_ros.config.parameters import (
    CloudConfig,
    DepthConfig,
    InputConfig,
    ModelConfig,
    NodeConfig,
    ScaleConfig,
    SharpConfig,
)

__all__ = [
    "NONE",
    "CloudConfig",
    "Config",
    "ConfigError",
    "DepthConfig",
    "InputConfig",
    "ModelConfig",
    "NodeConfig",
    "ScaleConfig",
    "SharpConfig",
    "add_option",
    "aliases",
    "check",
    "current_names",
    "is_yes_or_no",
    "unknown",
    "walk",
]
