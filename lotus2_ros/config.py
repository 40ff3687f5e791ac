"""Every parameter of the node and the command line: the one place of defaults, limits and help texts.

A field is declared with :func:`parameter`; ``ros/parameters.py`` turns it into a ROS parameter named
``<group>.<field>``, ``lotus2 params`` into ``config/perception.yaml`` and the README's table, ``lotus2 infer`` into
command line options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, cast

TASKS = ("depth", "normals")
NONE = "none"  # in place of an empty list, which ROS does not take
# Choices that stand for any string of a form.
FORMS = {"WIDTHxHEIGHT": re.compile(r"[1-9]\d{1,3}x[1-9]\d{1,3}")}


class ConfigError(ValueError):
    """A value that a parameter does not take."""


def parameter(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """Declare one parameter: default, help text, inclusive range or choices, and whether it may change at run time."""
    meta = {"help": help, "low": low, "high": high, "choices": choices, "live": live}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how it computes."""

    path: str = parameter("", "Bundle or folder in the released layout; empty: the small bundled model")
    device: str = parameter(
        "auto", "Where the model runs; auto: cuda if there is a GPU", choices=("auto", "cpu", "cuda")
    )
    dtype: str = parameter(
        "auto",
        "Compute precision; auto: bfloat16 on cuda, float32 on cpu",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    tasks: tuple[str, ...] = parameter(TASKS, "What to predict", choices=TASKS)
    process_resolution: int = parameter(
        0,
        "Longer side of the image the model sees, pixels; 0: the model's own; in the node, what the GPU keeps up with",
        low=0,
        high=4096,
        live=True,
    )
    posterior: str = parameter(
        "mode",
        "VAE posterior: mode is deterministic, sample draws from it with the seed",
        choices=("mode", "sample"),
        live=True,
    )
    seed: int = parameter(0, "Seed of posterior:=sample", low=0, high=2**31 - 1, live=True)
    conditioning: str = parameter(
        "bfloat16",
        "Rounding of guidance and timesteps; bfloat16 is what the published results were made with",
        choices=("bfloat16", "float32"),
    )
    threads: int = parameter(0, "CPU threads of the model; 0: torch's own choice", low=0, high=256)
    compile: bool = parameter(
        True, "On cuda compile the model and record its work as CUDA graphs; on the CPU without effect"
    )
    warm_up: tuple[str, ...] = parameter(
        ("640x480",),
        "Sizes of images that the model is run on once before the node is configured, so that no frame waits for it",
        choices=(NONE, "WIDTHxHEIGHT"),
    )


@dataclass(frozen=True)
class InputConfig:
    """What is subscribed to."""

    image_transport: str = parameter(
        "raw",
        "raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image/compressed`",
        choices=("raw", "compressed"),
    )
    fov: float = parameter(
        0.0,
        "Horizontal field of view in degrees assumed while no camera_info is there; 0: wait for camera_info",
        low=0.0,
        high=170.0,
    )
    sync_slop: float = parameter(
        0.0,
        "Largest difference between the stamps of an image and its camera_info, seconds",
        low=0.0,
        high=10.0,
        live=True,
    )


@dataclass(frozen=True)
class SharpConfig:
    """The detail sharpener on its slower timer."""

    enabled: bool = parameter(True, "Run the detail sharpener while someone subscribes to ~/sharp topics", live=True)
    period: float = parameter(
        1.0, "Seconds between the starts of two sharpened frames", low=0.0, high=3600.0, live=True
    )
    steps: int = parameter(0, "Euler steps of the sharpener; 0: the model's own", low=0, high=50, live=True)
    share: float = parameter(
        0.25,
        "Share of the model's time that a sharpened frame under way gets at least, however fast images come; a step "
        "after every frame is the most",
        low=0.0,
        high=1.0,
        live=True,
    )


@dataclass(frozen=True)
class ScaleConfig:
    """From relative to metric."""

    source: str = parameter(
        "auto",
        "Where metres come from; auto: reference/depth while there is one; none: relative topics only",
        choices=("auto", "none"),
        live=True,
    )
    max_age: float = parameter(
        2.0, "Seconds a fit to a reference stays in use after the reference's stamp", low=0.0, high=3600.0, live=True
    )  # fmt: skip
    reference_slop: float = parameter(
        0.1,
        "Largest difference between the stamps of a frame and a reference it is fitted to, seconds",
        low=0.0,
        high=10.0,
        live=True,
    )
    relative_shift: float = parameter(
        0.1,
        "Without a reference s in depth = 1 / (disparity + s): the farthest point is (1 + s) / s times the nearest",
        low=0.001,
        high=100.0,
        live=True,
    )


@dataclass(frozen=True)
class CloudConfig:
    """Point clouds."""

    normals: bool = parameter(False, "Add normal_x, normal_y, normal_z to the clouds", live=True)
    max_depth: float = parameter(
        0.0, "Points farther than this many metres become NaN in the cloud; 0: no limit", low=0.0, high=1e6, live=True
    )  # fmt: skip


@dataclass(frozen=True)
class NodeConfig:
    """The node's life and reports."""

    autostart: bool = parameter(True, "Configure and activate at start; false: wait for a lifecycle manager")
    warn_period: float = parameter(
        5.0, "Seconds between two warnings of the same kind", low=0.0, high=3600.0, live=True
    )


@dataclass(frozen=True)
class Config:
    """All groups of parameters."""

    model: ModelConfig = field(default_factory=ModelConfig)
    input: InputConfig = field(default_factory=InputConfig)
    sharp: SharpConfig = field(default_factory=SharpConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    node: NodeConfig = field(default_factory=NodeConfig)

    def __post_init__(self) -> None:
        for name, item in walk():
            group, _, key = name.partition(".")
            check(name, item, getattr(getattr(self, group), key))

    def updated(self, values: Mapping[str, Any]) -> Config:
        """A copy with ``{"group.field": value}`` changed. Raises ConfigError on an unknown name or a wrong value."""
        items = dict(walk())
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in items:
                raise ConfigError(f"unknown parameter {name!r}")
            group, _, key = name.partition(".")
            groups.setdefault(group, {})[key] = check(name, items[name], value)
        return replace(self, **{group: replace(getattr(self, group), **kw) for group, kw in groups.items()})

    def values(self) -> dict[str, Any]:
        """All parameters as ``{"group.field": value}``, in order of declaration."""
        return {name: getattr(getattr(self, name.split(".")[0]), name.split(".")[1]) for name, _ in walk()}


def walk() -> Iterator[tuple[str, Field]]:
    """Every parameter as (``group.field``, dataclass field), in order of declaration."""
    for group in fields(Config):
        for item in fields(cast(type, group.default_factory)):
            yield f"{group.name}.{item.name}", item


def check(name: str, item: Field, value: Any) -> Any:
    """``value`` as the parameter's own type. Raises ConfigError that says what was expected and what came."""
    meta, kind = item.metadata, type(item.default)
    if kind is tuple:
        if isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{name}: expected a list of strings, got {value!r}")
        wrong = [v for v in value if not any(_is_choice(v, choice) for choice in meta["choices"])]
        if wrong or not value or len(set(value)) != len(value):
            raise ConfigError(f"{name}: expected different ones of {', '.join(meta['choices'])}, got {list(value)!r}")
        return tuple(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name}: expected {kind.__name__}, got {value!r}")
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{name}: expected one of {', '.join(meta['choices'])}, got {value!r}")
    low, high = meta["low"], meta["high"]
    # "not (low <= value)" rather than "value < low": NaN must fail too.
    if (low is not None and not low <= value) or (high is not None and not value <= high):
        raise ConfigError(f"{name}: expected {low} to {high}, got {value!r}")
    return value


def _is_choice(value: str, choice: str) -> bool:
    return bool(FORMS[choice].fullmatch(value)) if choice in FORMS else value == choice
