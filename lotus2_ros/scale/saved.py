"""A scale filter as plain data, so that an interrupted run continues exactly."""

from __future__ import annotations

from collections import deque
from importlib import import_module
from typing import Any

from torch import Tensor

from lotus2_ros.scale.filter import ScaleFilter

PACKAGE = "lotus2_ros."  # only classes in it are made from data


def saved(scale_filter: ScaleFilter) -> dict[str, Any]:
    """The state of the filter as dicts, lists, numbers, strings and tensors."""
    return _plain(scale_filter)


def restored(state: dict[str, Any]) -> ScaleFilter:
    """The filter of :func:`saved`. Raises ValueError if the data are of another object or version."""
    try:
        found = _object(state)
    except (ImportError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"expected a scale filter of this version: {error}") from None
    if not isinstance(found, ScaleFilter):
        raise ValueError(f"expected a scale filter, got {type(found).__name__}")
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, deque):
        return {"deque": [_plain(part) for part in value], "maxlen": value.maxlen}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {"dict": [(_plain(key), _plain(part)) for key, part in value.items()]}
    if type(value) is tuple:
        return {"tuple": [_plain(part) for part in value]}
    kind = type(value)
    if not kind.__module__.startswith(PACKAGE):
        raise TypeError(f"expected plain data and classes of {PACKAGE}*, got {kind.__module__}.{kind.__qualname__}")
    name = f"{kind.__module__}:{kind.__qualname__}"
    if isinstance(value, tuple):
        return {"named": name, "fields": [_plain(part) for part in value]}
    return {"object": name, "fields": {key: _plain(part) for key, part in vars(value).items()}}


def _object(value: Any) -> Any:
    if isinstance(value, list):
        return [_object(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "deque" in value:
        return deque((_object(part) for part in value["deque"]), maxlen=value["maxlen"])
    if "tuple" in value:
        return tuple(_object(part) for part in value["tuple"])
    if "dict" in value:
        return {_object(key): _object(part) for key, part in value["dict"]}
    if "named" in value:
        return _class(value["named"])(*(_object(part) for part in value["fields"]))
    kind = _class(value["object"])
    made = kind.__new__(kind)
    made.__dict__.update({key: _object(part) for key, part in value["fields"].items()})
    return made


def _class(name: str) -> Any:
    module, _, qualname = name.partition(":")
    if not module.startswith(PACKAGE):
        raise TypeError(f"expected a class of {PACKAGE}*, got {name}")
    return getattr(import_module(module), qualname)
