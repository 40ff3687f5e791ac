"""Configs of components under diffusers' keys, checked by type and range before a component is built from one."""

from __future__ import annotations

import inspect
import json
import types
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from lotus2_ros.model.manifest import Section, first_problem

LARGEST = 65536  # of any integer in a config: channels, tokens, timesteps
MOST_LAYERS = 512
LONGEST = 64  # entries of a list

Item = TypeVar("Item")
Channels = Annotated[int, Field(ge=0, le=LARGEST)]
Layers = Annotated[int, Field(ge=0, le=MOST_LAYERS)]
Listed = Annotated[tuple[Item, ...], Field(max_length=LONGEST, strict=False)]  # from Python, a list will do


class ComponentConfig(Section):
    """Unknown keys are errors. The defaults are diffusers'."""

    model_config = ConfigDict(extra="forbid")


def config_of(component: type) -> Any:
    """The type of a manifest's field that holds the config of a diffusers component."""

    def check(config: dict[str, Any]) -> dict[str, Any]:
        try:
            _schema(component).model_validate_json(json.dumps(config))
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None
        return config

    return Annotated[dict[str, Any], AfterValidator(check)]


@cache
def _schema(component: type) -> type[BaseModel]:
    """The parameters of a component's constructor as a pydantic model; unknown keys are errors."""
    hints = get_type_hints(component.__init__)  # type: ignore[misc]
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(component).parameters.items():
        kind = _bounded(hints[name], MOST_LAYERS if "layers" in name else LARGEST)
        fields[name] = (kind if parameter.default is not None else kind | None, parameter.default)
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return create_model(f"{component.__name__}Config", __config__=config, **fields)


def _bounded(kind: Any, largest: int) -> Any:
    """A constructor's annotation as pydantic is to take it: with limits, and lists of any length for `tuple[int]`."""
    if kind is int:
        return Annotated[int, Field(ge=0, le=largest)]
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not Ellipsis]
    if origin is tuple:
        inner = tuple(_bounded(part, largest) for part in parts)
        items: Any = tuple.__class_getitem__((inner[0], ...) if len(inner) == 1 else inner)
        return Annotated[items, Field(max_length=LONGEST)]
    if origin in (Union, types.UnionType):
        return Union[tuple(_bounded(part, largest) for part in parts)]  # noqa: UP007, known at run time only
    return kind
