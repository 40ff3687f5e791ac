"""`bundle.json`, the manifest of a bundle: what is common to all families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lotus2_ros.model.weights import CheckpointError, read_json

MANIFEST = "bundle.json"
METADATA = ("name", "licence", "sources", "card")


def check_metadata(metadata: Mapping[str, Any]) -> None:
    unknown = set(metadata) - set(METADATA)
    if unknown or not {"name", "licence"} <= set(metadata):
        raise ValueError(f"expected metadata name, licence and optionally sources, card; got {', '.join(metadata)}")


def read_manifest(path: Path, formats: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The manifest of a bundle of one of these formats, by family."""
    manifest = read_json(path)
    if manifest.get("format") not in formats.get(str(manifest.get("family")), ()):
        known = ", ".join(f"{' or '.join(map(str, numbers))} of family {family}" for family, numbers in formats.items())
        raise CheckpointError(
            f"{path}: expected format {known}, got format {manifest.get('format')} of family {manifest.get('family')}"
        )
    return manifest


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of a manifest with its path in front."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{path}: missing key {error.args[0]}") from None
    except CheckpointError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers config without the library's own notes in it."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def choose_tasks(available: Sequence[str], wanted: Sequence[str] | None, source: Path) -> tuple[str, ...]:
    missing = [task for task in wanted or () if task not in available]
    if missing:
        raise CheckpointError(f"{source}: has no task {missing[0]!r}; it has {', '.join(available)}")
    return tuple(wanted or available)
