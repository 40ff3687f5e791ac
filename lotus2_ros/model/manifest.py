"""`bundle.json`, the manifest of a bundle: the keys that all families share, and how any of its keys is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from lotus2_ros.geometry.depth import Space
from lotus2_ros.model.weights import CheckpointError

MANIFEST = "bundle.json"
METADATA = ("name", "licence", "sources", "card")

TASKS = ("depth", "normals")
FloatName = Literal["float32", "bfloat16", "float16"]
# Names of a union's members, which pydantic adds to the place of an error.
_UNION_MEMBER = re.compile(r"str|int|float|bool|tuple\[.*")
SHOWN = 80  # characters of a wrong value


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"expected {' or '.join(TASKS)}, got {name!r}")
    return name


Task = Annotated[str, AfterValidator(_known_task)]


class Section(BaseModel):
    """Some of the keys of a JSON file; keys that belong to other sections are ignored.

    Types are strict: a number in quotes is no number.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The section from a file. Raises CheckpointError that names the file and the key."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise CheckpointError(f"{path}: {first_problem(error)}") from None


class Header(Section):
    """Family and format, which say what else a manifest has."""

    format: int
    family: str


class Manifest(Header):
    """The keys of every bundle. `sources`: {file: sha256} of the files that the bundle was made from."""

    name: str
    licence: str
    sources: dict[str, str] | None = None
    card: Any = None
    tasks: tuple[Task, ...] = Field(min_length=1)

    @property
    def metadata(self) -> dict[str, Any]:
        return self.model_dump(include=set(METADATA), exclude_none=True)


class ModelSettings(Section):
    """How a model is meant to be used; the keys of bundle.json are the field names, or their alias.

    predicts: whether a depth is predicted as disparity (1 / depth) or as depth, up to scale and shift.
    timestep_dtype: dtype to which timesteps and guidance are rounded before they are embedded.
    process_resolution, process_by_area: the size at which images are processed, see `process_size`.
    antialias: whether images are low-pass filtered when they are made smaller.
    guided: whether the edges of depth follow those of the image, see `inference.upsampling`.
    upscale: whether images below the processing size are made larger.
    sharpener_steps: Euler steps of the detail sharpener, where there is one.
    sharpen_by_default: whether the node sharpens when `sharp.steps` is 0.
    """

    tasks: tuple[Task, ...] = Field(min_length=1)
    predicts: Space = "disparity"
    timestep_dtype: FloatName = Field(
        default="bfloat16", validation_alias="conditioning", serialization_alias="conditioning"
    )
    process_resolution: int = Field(ge=1, le=8192)
    process_by_area: bool = False
    antialias: bool = False
    guided: bool = Field(default=False, validation_alias="guided_upsampling", serialization_alias="guided_upsampling")
    upscale: bool = Field(default=False, validation_alias="enlarges", serialization_alias="enlarges")
    sharpener_steps: int = Field(default=10, ge=1, le=1000)
    sharpen_by_default: bool = Field(default=True, validation_alias="sharpens", serialization_alias="sharpens")

    def changed(self, **values: Any) -> Self:
        """A copy with some settings changed."""
        return self.model_copy(update=values)

    def stored(self, *names: str) -> dict[str, Any]:
        """Some settings by their keys in bundle.json."""
        return self.model_dump(by_alias=True, include=set(names))


def first_problem(error: ValidationError) -> str:
    """The first error as `key: expected X, got Y`, in one line."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    while len(place) > 1 and _UNION_MEMBER.fullmatch(place[-1]):
        place.pop()
    key, kind = ".".join(place), first["type"]
    if kind == "json_invalid":
        return f"not JSON ({first['ctx']['error']})"
    if kind == "missing":
        return f"missing key {key}"
    if kind == "extra_forbidden":
        return f"unknown key {key}"
    message = re.sub(r"^Input should (be )?", "expected ", first["msg"].removeprefix("Value error, "))
    got = "" if kind == "value_error" else f", got {str(first['input'])[:SHOWN]!r}"
    return " ".join(f"{key + ': ' if key else ''}{message}{got}".split())


def read_header(path: Path, formats: Mapping[str, Sequence[int]]) -> Header:
    """Family and format of a bundle. Raises CheckpointError unless they are among `formats`, by family."""
    header = Header.read(path)
    if header.format not in formats.get(header.family, ()):
        known = ", ".join(f"{' or '.join(map(str, numbers))} of family {family}" for family, numbers in formats.items())
        raise CheckpointError(f"{path}: expected format {known}, got format {header.format} of family {header.family}")
    return header


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def stored_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata in the order of bundle.json. Raises ValueError on unknown or missing keys."""
    unknown = set(metadata) - set(METADATA)
    if unknown or not {"name", "licence"} <= set(metadata):
        raise ValueError(f"expected metadata name, licence and optionally sources, card; got {', '.join(metadata)}")
    return {key: metadata[key] for key in METADATA if key in metadata}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn any error of the constructors that a manifest is passed to into a CheckpointError that names the file.

    diffusers and torch raise errors of many types for configs that no network can be built from.
    """
    try:
        yield
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{path}: missing key {error.args[0]}") from None
    except Exception as error:  # of many types, see above
        raise CheckpointError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from None


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers config without the library's own notes in it."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def choose_tasks(available: Sequence[Task], wanted: Sequence[str] | None, source: Path) -> tuple[Task, ...]:
    """`wanted`, or all tasks if None. Raises CheckpointError on a task that is not available."""
    missing = [task for task in wanted or () if task not in available]
    if missing:
        raise CheckpointError(f"{source}: expected tasks among {', '.join(available)}, got {missing[0]!r}")
    return tuple(wanted or available)
