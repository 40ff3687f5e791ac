"""The folder in which a bundle is written, beside its final place. A run that ended early continues there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lotus2_ros.config.errors import first_line
from lotus2_ros.config.output import OutputError
from lotus2_ros.model.weights import read_weights
from lotus2_ros.prepare.space import work_folder

PLAN, BUNDLE = "plan.json", "bundle"


def check_new(output: Path) -> None:
    """Raise OutputError unless the output is new, or an empty folder."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise OutputError(f"{output}: already there; remove it or choose another --output")


class Work:
    """`<output>.part`: the plan, intermediate results, and `bundle/` with the finished files.

    plan: everything that the result depends on. An earlier run with the same plan is continued; the files of a run with
    another plan are removed. `continues`: whether there is something to continue. Raises OutputError if the folder
    exists and is no work folder.
    """

    def __init__(self, output: Path, plan: Mapping[str, Any]) -> None:
        self._output, self.folder = output, work_folder(output)
        self.bundle = self.folder / BUNDLE
        text = json.dumps(plan, indent=2)
        if not self._is_of(text):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.bundle.mkdir(parents=True, exist_ok=True)
        (self.folder / PLAN).write_text(text)
        self.continues = self.has_results

    @property
    def has_results(self) -> bool:
        """Whether any part or intermediate result is there."""
        return any(self.folder.rglob("*.safetensors"))

    def _is_of(self, plan: str) -> bool:
        file = self.folder / PLAN
        if file.is_file():
            return file.read_text() == plan
        if self.folder.is_symlink() or any(path.is_file() for path in (self.folder, *self.folder.rglob("*"))):
            raise OutputError(f"{self.folder}: expected an unfinished bundle or nothing, got another folder; remove it")
        return False

    def read(self, name: str) -> dict[str, Tensor] | None:
        """The tensors that `write` wrote, in memory, or None."""
        file = self.folder / name
        return {key: tensor.clone() for key, tensor in read_weights(file).items()} if file.is_file() else None

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a safetensors file, as a whole or not at all."""
        file = self.folder / name
        partial = file.with_name(f"{file.name}.new")
        try:
            partial.touch()
            mode = partial.stat().st_mode  # by the user's umask; the library makes files that only the owner can read
            # Copied, because the library refuses tensors that share memory.
            save_file({key: tensor.to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}, partial)
            partial.chmod(mode)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(file)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{file}: cannot be written ({first_line(error)})") from None

    def has_part(self, file: str) -> bool:
        return (self.bundle / file).is_file()

    def write_part(self, file: str, tensors: Mapping[str, Tensor]) -> None:
        """A file of the bundle."""
        self.write(f"{BUNDLE}/{file}", tensors)

    def finish(self) -> None:
        """Move the bundle to its final place."""
        for file in self.bundle.glob("*.new"):
            file.unlink()
        self.bundle.replace(self._output)
        self.discard()

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
