"""One parameter: how it is declared, checked and made an option of a command. They are listed in ``parameters.py``."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable
from dataclasses import Field, field
from typing import Any

NONE = "none"  # in place of an empty list, which ROS does not take
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
TRANSFORM = "X Y Z QX QY QZ QW"
# Choices that stand for any string of a form.
FORMS = {
    "WIDTHxHEIGHT": re.compile(r"[1-9]\d{1,3}x[1-9]\d{1,3}"),
    "openvino:DEVICE": re.compile(r"openvino:[A-Z]+(\.\d+)?"),
    TRANSFORM: re.compile(rf"{NUMBER}( +{NUMBER}){{6}}"),
}


class ConfigError(ValueError):
    """A value that a parameter does not take."""


def parameter(
    default: Any,
    help: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
    alias: str = "",
) -> Any:
    """Declare one parameter: the default, which also gives the type, and the help text.

    Args:
        limits: smallest and largest value of a number.
        choices: the values of a string or of a list's entries, or names of FORMS.
        live: whether the parameter may change while the node runs.
        alias: full former name (``group.field``) of a renamed parameter, which users may still set.
    """
    meta = {"help": help, "limits": limits, "choices": choices, "live": live, "alias": alias}
    return field(default=default, metadata=meta)


def check(name: str, item: Field, value: Any) -> Any:
    """``value`` as the parameter's own type. Raises ConfigError that says what was expected and what came."""
    kind, choices, limits = type(item.default), item.metadata["choices"], item.metadata["limits"]
    if kind is tuple:
        return _checked_list(name, choices, value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name}: expected {kind.__name__}, got {value!r}")
    if choices and not _is_any(value, choices):
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    if TRANSFORM in choices and FORMS[TRANSFORM].fullmatch(str(value)):
        numbers = [float(number) for number in str(value).split()]
        if not math.isfinite(math.hypot(*numbers)) or math.hypot(*numbers[3:]) < 1e-6:
            raise ConfigError(f"{name}: expected finite numbers and a quaternion that is not zero, got {value!r}")
    if limits and not limits[0] <= value <= limits[1]:  # NaN is not within any limits
        raise ConfigError(f"{name}: expected {limits[0]} to {limits[1]}, got {value!r}")
    return value


def _checked_list(name: str, choices: tuple[str, ...], value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(f"{name}: expected a list of strings, got {value!r}")
    if not value:
        advice = f"; use [{NONE}] for none" if NONE in choices else ""
        raise ConfigError(f"{name}: expected at least one of {', '.join(choices)}, got []{advice}")
    if len(set(value)) != len(value) or not all(_is_any(entry, choices) for entry in value):
        raise ConfigError(f"{name}: expected a selection of {', '.join(choices)}, got {list(value)!r}")
    return tuple(value)


def add_option(parser: argparse.ArgumentParser, option: str, name: str, item: Field, help: str = "") -> None:
    """Add ``option`` to a command for the parameter ``name``, with the parameter's default, choices and help text.

    ``help`` is another text for this command. A renamed parameter's former name still works as an option.
    """
    meta, is_list = item.metadata, isinstance(item.default, tuple)
    shown = ",".join(item.default) if isinstance(item.default, tuple) else item.default
    former = meta["alias"].partition(".")[2]
    parser.add_argument(
        *([option, "--" + former.replace("_", "-")] if former else [option]),
        dest=name,
        default=item.default,
        type=(lambda text: tuple(text.split(","))) if is_list else type(item.default),
        metavar="|".join(meta["choices"]) or option.strip("-").upper(),
        help=_uncapitalized(help or meta["help"])
        + ("; several separated by commas" if is_list else "")
        + (f" (default: {shown})" if shown != "" else ""),
    )


def _uncapitalized(text: str) -> str:
    """As the help texts of commands begin; CPU stays."""
    return text if text[:2].isupper() else text[0].lower() + text[1:]


def is_yes_or_no(item: Field) -> bool:
    return {"yes", "no"} <= set(item.metadata["choices"])


def of_yaml(item: Field, value: Any) -> Any:
    """The value as it was written: YAML reads yes and no as booleans."""
    return ("yes" if value else "no") if isinstance(value, bool) and is_yes_or_no(item) else value


def _is_any(value: Any, choices: Iterable[str]) -> bool:
    """Whether a value is one of the choices, or has the form that one of them names."""
    return any(FORMS[choice].fullmatch(value) if choice in FORMS else value == choice for choice in choices)
