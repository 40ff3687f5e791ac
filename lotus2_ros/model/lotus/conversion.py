"""Released folders of Lotus-D or Lotus-G, one for each task, into one bundle without a text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lotus2_ros.geometry.depth import Space
from lotus2_ros.model.conversion import Conversion, Store
from lotus2_ros.model.layers.precision import dtype_name, dtype_named
from lotus2_ros.model.lotus import FORMAT
from lotus2_ros.model.lotus.bundle import describe, parts
from lotus2_ros.model.lotus.released import open_pipelines
from lotus2_ros.model.weights import bytes_of


class LotusConversion(Conversion):
    """folders: by task. predicts: the space of the depths. precision: as the files are if None."""

    def __init__(
        self, folders: Mapping[str, Path], files: Mapping[str, Path], *, predicts: Space, precision: str | None
    ) -> None:
        self.files = files
        self.model, self.state = open_pipelines(folders, predicts=predicts)
        first = self.state[f"unets.{self.model.tasks[0]}.conv_in.weight"]
        self.dtype = first.dtype if precision is None else dtype_named(precision)

    @property
    def plan(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "family": self.model.family,
            "tasks": self.model.tasks,
            "predicts": self.model.settings.predicts,
            "precision": dtype_name(self.dtype),
        }

    @property
    def parts(self) -> list[str]:
        return list(parts(self.model))

    @property
    def size(self) -> int:
        return bytes_of(self.model.state_dict(), self.model.dtype_of(self.dtype))

    def convert(self, store: Store) -> Iterator[str]:
        dtype_of = self.model.dtype_of(self.dtype)
        for file, names in parts(self.model).items():
            if not store.has_part(file):
                store.write_part(file, {name: self.state[name].to(dtype_of(name)) for name in names})
            yield file

    def manifest(self, sources: Mapping[str, str]) -> dict[str, Any]:
        return describe(self.model, self.dtype, {**self.model.metadata, "sources": dict(sources)})
