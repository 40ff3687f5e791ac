"""The parameters of ``config/parameters.py`` as ROS parameters, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import Field

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from lotus2_ros.config import NONE, Config, ConfigError, current_names, is_yes_or_no, unknown, walk
from lotus2_ros.config.live import CameraConfigs

FIXED = "only while the node is unconfigured"
CAMERAS = "cameras"
# The policies of a topic that may be overridden, with their values, and the topics of which rclpy takes more.
QOS = {"reliability": ("reliable", "best_effort"), "history": ("keep_last", "keep_all"), "depth": ()}
INFRASTRUCTURE = ("/clock", "/parameter_events", "/rosout", "/tf", "/tf_static")
MAX_DEPTH = 10000
CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def declare(node: Node) -> CameraConfigs:
    """Declare every parameter with its default, range and description; the configurations with the user's overrides.

    Raises ConfigError on an override that a parameter does not take.
    """
    common = _declare_common(node)
    cameras = _declare_cameras(node)
    own = {camera: _declare_own(node, camera) for camera in cameras}
    weights = {camera: _declare_weight(node, camera) for camera in cameras}
    _refuse_unknown(node)
    return CameraConfigs(common, own or None, weights)


def _declare_common(node: Node) -> Config:
    values = {}
    for name, item in walk():
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        if former := item.metadata["alias"]:
            about = ParameterDescriptor(description=f"Former name of {name}", dynamic_typing=True)
            given = node.declare_parameter(former, None, about).value
            if given is not None:
                default = current_names({former: given})[name]
        try:
            values[name] = _plain(node.declare_parameter(name, default, describe(item)), item)
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(str(error)) from None
    return Config().updated(values)


def _declare_cameras(node: Node) -> list[str]:
    """The names of several cameras; none: a single one."""
    about = ParameterDescriptor(
        description="Names of the cameras that one model serves, each with topics and parameters below its name; none: "
        "one camera, without a name",
        read_only=True,
        dynamic_typing=True,  # YAML reads [] as nothing
    )
    given = node.declare_parameter(CAMERAS, [NONE], about).value
    names = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
    names = [] if names == [NONE] else names
    groups = {name.partition(".")[0] for name, _ in walk()}
    wrong = [name for name in names if not isinstance(name, str) or not CAMERA_NAME.fullmatch(name) or name in groups]
    if wrong or len(set(names)) != len(names):
        expected = f"different names of letters, digits and underscores, none of them {', '.join(sorted(groups))}"
        raise ConfigError(f"{CAMERAS}: expected {expected}, got {names}")
    return names


def _declare_own(node: Node, camera: str) -> dict[str, object]:
    """The values that one camera has for itself. A parameter without one is not set."""
    own = {}
    for name, item in walk():
        if is_per_camera(name, item):
            about = describe(item)
            about.description, about.dynamic_typing = f"For {camera} only; not set: {name}", True
            about.floating_point_range = about.integer_range = []  # rclpy refuses "not set" of a parameter with a range
            value = node.declare_parameter(f"{camera}.{name}", None, about)
            if value.value is not None:
                own[name] = _plain(value, item)
    return own


def _declare_weight(node: Node, camera: str) -> float:
    """The share of the model's turns that a camera gets while frames of several wait. Raises ConfigError."""
    about = ParameterDescriptor(
        description=f"Turns of {camera} at the model, relative to other cameras of which frames wait too",
        read_only=True,
        dynamic_typing=True,
    )
    weight = node.declare_parameter(f"{camera}.weight", 1.0, about).value
    if not isinstance(weight, (int, float)) or not 0.01 <= weight <= 100:
        raise ConfigError(f"{camera}.weight: expected a number from 0.01 to 100, got {weight!r}")
    return float(weight)


def is_per_camera(name: str, item: Field) -> bool:
    """Whether cameras of one node may differ in a parameter: not in what the model is, nor in the node's own life."""
    group = name.partition(".")[0]
    return item.metadata["live"] if group == "model" else group != "node"


def _refuse_unknown(node: Node) -> None:
    """Raise ConfigError for an override of a parameter that does not exist."""
    for name, parameter in node._parameter_overrides.items():  # rclpy has no public way to read them
        if name.startswith("qos_overrides."):
            _check_qos(name, parameter.value)
        elif not node.has_parameter(name):
            raise unknown(name)


def _check_qos(name: str, value: object) -> None:
    """Raise ConfigError for an override that rclpy would refuse, or not look at, when it opens the topic.

    Such as ``qos_overrides./image.subscription.reliability``.
    """
    topic, _, policy = name.removeprefix("qos_overrides.").rpartition(".")
    if topic.partition(".")[0] in INFRASTRUCTURE:
        return
    if policy not in QOS or not topic.startswith("/") or topic.rpartition(".")[2] not in ("publisher", "subscription"):
        expected = f"qos_overrides./TOPIC.publisher or subscription, and one of {', '.join(QOS)}"
        raise ConfigError(f"{name}: expected {expected}")
    if policy == "depth":
        if type(value) is not int or not 1 <= value <= MAX_DEPTH:
            raise ConfigError(f"{name}: expected 1 to {MAX_DEPTH}, got {value!r}")
    elif value not in QOS[policy]:
        raise ConfigError(f"{name}: expected one of {', '.join(QOS[policy])}, got {value!r}")


def follow_aliases(parameters: list[Parameter]) -> list[Parameter]:
    """A callback for ``add_pre_set_parameters_callback``: a former name sets the parameter under its present name.

    An empty list, which ROS refuses, when one request has both names.
    """
    try:
        renamed = current_names({parameter.name: parameter for parameter in parameters})
    except ConfigError:
        return []
    return [Parameter(name, parameter.type_, parameter.value) for name, parameter in renamed.items()]


def describe(item: Field) -> ParameterDescriptor:
    """The descriptor that ``ros2 param describe`` shows."""
    meta = item.metadata
    constraints = [f"one of: {', '.join(meta['choices'])}"] if meta["choices"] else []
    constraints += [] if meta["live"] else [f"changes {FIXED}"]
    descriptor = ParameterDescriptor(description=meta["help"], additional_constraints="; ".join(constraints))
    # YAML reads yes and no as booleans, 2 as an integer and [] as nothing. `_plain` and the check take care of types.
    descriptor.dynamic_typing = isinstance(item.default, (float, tuple)) or is_yes_or_no(item)
    if meta["limits"]:
        low, high = meta["limits"]
        if isinstance(item.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor


def on_change(
    configs: CameraConfigs, configured: Callable[[], bool]
) -> Callable[[Sequence[Parameter]], SetParametersResult]:
    """A callback for ``add_on_set_parameters_callback`` that takes valid changes and refuses others with a reason."""
    items = dict(walk())
    for camera in configs.cameras:
        items |= {f"{camera}.{name}": item for name, item in walk() if is_per_camera(name, item)}

    def callback(parameters: Sequence[Parameter]) -> SetParametersResult:
        values = {p.name: _plain(p, items[p.name]) for p in parameters if p.name in items}
        fixed = [name for name in values if configured() and not items[name].metadata["live"]]
        if fixed:
            return SetParametersResult(successful=False, reason=f"{fixed[0]} changes {FIXED}")
        try:
            configs.update(values)
        except Exception as error:  # the caller must get an answer, whatever the error
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    return callback


def _plain(parameter: Parameter, item: Field) -> object:
    """The value as `config` takes it."""
    value = parameter.value
    if value is None and "." in parameter.name.partition(".")[2]:
        return None  # a camera's own, not set
    if isinstance(item.default, tuple):
        return () if value is None else tuple(value) if isinstance(value, list) else value
    return value
