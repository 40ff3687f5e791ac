"""A bag that grows frame by frame, and that a later run continues after an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from lotus2_ros.bags.frames import Say, say_on_stderr
from lotus2_ros.bags.reader import open_reader
from lotus2_ros.bags.writer import BagWriter, added_to, partial_folder, written_by
from lotus2_ros.config.errors import first_line
from lotus2_ros.config.output import OutputError, check_output, in_use, is_claimed, sync

PLAN, STATE = "plan.json", "state.pt"

if TYPE_CHECKING:
    from typing_extensions import Self


class ResumableBag(BagWriter):
    """The output of a command that writes one bag.

    ``plan`` has everything that the frames depend on, as JSON. An interrupted run leaves the folder ``<name>.partial``
    with what :meth:`checkpoint` was last given. ``resume`` takes over the messages up to there; ``state`` is what was
    given. ``overwrite`` replaces an earlier bag of the command, and drops an interrupted run. The constructor raises
    OutputError, before any work, if anything else is there, or if the output is, contains or lies inside an input.
    """

    def __init__(
        self,
        path: Path,
        command: str,
        plan: Mapping[str, Any],
        inputs: list[Path],
        *,
        resume: bool = False,
        overwrite: bool = False,
        say: Say = say_on_stderr,
    ) -> None:
        place = check_output(path, command, inputs, written_by=written_by)
        if place == Path.cwd():
            raise OutputError(f"{path}: the current folder cannot become a bag; choose another output")
        check_output(partial_folder(place), command, inputs)
        self.state: dict[str, Any] = {}  # of the last checkpoint of the interrupted run; empty: it starts anew
        self._plan = json.loads(json.dumps(plan))
        self._say = say
        # It holds what an earlier run left while its frames are copied.
        self._earlier = place.with_name(f"{place.name}.partial.earlier")
        check_output(self._earlier, command, inputs)
        found = next((folder for folder in (self._earlier, partial_folder(place)) if folder.exists()), None)
        if found and is_claimed(found):
            raise in_use(found)
        if written_by(place) == command and not overwrite and not (resume and found):
            raise OutputError(f"{path}: already exists; --overwrite replaces it")
        if added := added_to(place):
            raise OutputError(
                f"{path}: has files that `lotus2 {command}` did not write: {', '.join(added)}; move them or choose "
                "another output"
            )
        if found is not None and resume:
            self._check_plan(found)
        elif found is not None and not overwrite:
            raise OutputError(f"{found}: left by an interrupted run; --resume goes on with it, --overwrite drops it")
        self._resumed = resume and found is not None
        super().__init__(place, command=command, keep_partial=True)

    def _check_plan(self, folder: Path) -> None:
        try:
            earlier = json.loads((folder / PLAN).read_text())
        except (OSError, ValueError):
            raise OutputError(f"{folder}: expected {PLAN} of an interrupted run; --overwrite starts anew") from None
        changed = [name for name, value in self._plan.items() if earlier.get(name) != value]
        if changed:
            name = changed[0]
            raise OutputError(
                f"{folder}: expected to resume a run with {name} {earlier.get(name)!r}, got {self._plan[name]!r}; "
                "--overwrite starts anew"
            )

    def __enter__(self) -> Self:
        if not self._resumed:
            shutil.rmtree(self._earlier, ignore_errors=True)
        elif not self._earlier.exists():
            self.partial.rename(self._earlier)
        super().__enter__()
        (self.partial / PLAN).write_text(json.dumps(self._plan, indent=2))
        if self._resumed:
            self._take_over()
            shutil.rmtree(self._earlier)
        return self

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Store the state with which a later run continues from here, even if this process is killed or the machine
        fails. ``state`` holds dicts, lists, numbers, strings and tensors."""
        self.flush()
        for file in self._folder.glob("*.mcap"):
            sync(file)
        new = self.partial / f"{STATE}.new"
        stored = BytesIO()  # in a file torch meets a full disk with a RuntimeError
        torch.save({"messages": self.count, "state": dict(state)}, stored)
        new.write_bytes(stored.getvalue())
        sync(new)
        new.replace(self.partial / STATE)

    def _take_over(self) -> None:
        """The messages of the interrupted run up to its last checkpoint."""
        file = next(self._earlier.glob("*/*.mcap"), None)
        if file is None or not (self._earlier / STATE).is_file():
            return  # it was killed before its first checkpoint
        try:
            found = torch.load(self._earlier / STATE, weights_only=True)
            messages, state = found["messages"], found["state"]
        except Exception as error:  # of a damaged file torch raises errors of any class
            raise OutputError(
                f"{self._earlier / STATE}: cannot be read ({first_line(error)}); --overwrite starts anew"
            ) from None
        with open_reader(file, say=lambda line: None) as reader:
            for item in islice(reader.messages(), messages):
                self.write_raw(item.topic, item.kind, reader.cdr(item), item.time_ns, item.definition, item.digest)
        if self.count != messages:
            raise OutputError(f"{file}: expected {messages} messages, got {self.count}; --overwrite starts anew")
        self.state = state
        self.checkpoint(state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            if self.partial.exists():
                self._say(f"interrupted: {self.partial} has what was done so far; run again with --resume to go on")
