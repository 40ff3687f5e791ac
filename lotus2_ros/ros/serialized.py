"""Messages of any type as CDR bytes, the form in which bags store them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message


def message_class(name: str) -> type:
    """The class of ``package/msg/Name``. Raises ImportError when its package is not installed."""
    package, _, kind = name.split("/")
    return getattr(import_module(f"{package}.msg"), kind)


def deserialize(raw: bytes, name: str) -> Any:
    """The message of type ``name`` in CDR bytes."""
    return deserialize_message(raw, message_class(name))


def serialize(message: Any) -> tuple[str, bytes]:
    """Type name and CDR bytes."""
    package = type(message).__module__.partition(".")[0]
    return f"{package}/msg/{type(message).__name__}", serialize_message(message)
