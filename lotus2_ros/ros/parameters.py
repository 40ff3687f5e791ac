"""The parameters of ``config/parameters.py`` as ROS parameters, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field
from difflib import get_close_matches

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from lotus2_ros.config import Config, ConfigError, current_names, walk
from lotus2_ros.config.live import LiveConfig

FIXED = "only while the node is unconfigured"


def declare(node: Node) -> Config:
    """Declare every parameter with its default, range and description; the configuration with the user's overrides.

    Raises ConfigError on an override that a parameter does not take.
    """
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
    _refuse_unknown(node)
    return Config().updated(values)


def _refuse_unknown(node: Node) -> None:
    """Raise ConfigError for an override of a parameter that does not exist, and name the nearest that does."""
    names = [name for name, _ in walk()]
    for name in node._parameter_overrides:  # rclpy has no public way to read them
        if node.has_parameter(name) or name.startswith(("qos_overrides.", "use_sim_time")):
            continue
        near = get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown parameter {name}; did you mean {near}?")


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
    descriptor.dynamic_typing = isinstance(item.default, (float, tuple)) or _is_yes_or_no(item)
    if meta["low"] is not None:
        if isinstance(item.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=meta["low"], to_value=meta["high"])]
        else:
            descriptor.integer_range = [IntegerRange(from_value=meta["low"], to_value=meta["high"])]
    return descriptor


def on_change(
    live: LiveConfig, configured: Callable[[], bool], accept: Callable[[Config], None]
) -> Callable[[Sequence[Parameter]], SetParametersResult]:
    """A callback for ``add_on_set_parameters_callback`` that takes valid changes and refuses others with a reason."""
    items = dict(walk())

    def callback(parameters: Sequence[Parameter]) -> SetParametersResult:
        values = {p.name: _plain(p, items[p.name]) for p in parameters if p.name in items}
        fixed = [name for name in values if configured() and not items[name].metadata["live"]]
        if fixed:
            return SetParametersResult(successful=False, reason=f"{fixed[0]} changes {FIXED}")
        try:
            accept(live.current.updated(values))
        except Exception as error:  # the caller must get an answer, whatever the error
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    return callback


def _is_yes_or_no(item: Field) -> bool:
    return {"yes", "no"} <= set(item.metadata["choices"])


def _plain(parameter: Parameter, item: Field) -> object:
    """The value as `config` takes it."""
    value = parameter.value
    if isinstance(item.default, tuple):
        return () if value is None else tuple(value) if isinstance(value, list) else value
    if isinstance(value, bool) and _is_yes_or_no(item):
        return "yes" if value else "no"
    return value
