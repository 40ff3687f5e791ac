"""A bag that grows frame by frame, and that a later run goes on with after an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lotus2_ros.bags.frames import Say, say_on_stderr
from lotus2_ros.bags.writer import INFO_TOPIC, BagWriter, partial_folder, read_messages, written_by
from lotus2_ros.config.output import OutputError, check_output

PLAN = "plan.json"

if TYPE_CHECKING:
    from typing_extensions import Self

Message = tuple[str, str, bytes, int]  # as write_raw takes it


class ResumableBag(BagWriter):
    """The output of a command that writes one bag.

    ``plan`` has everything that the frames depend on, as JSON. An interrupted run leaves the folder ``<name>.partial``.
    ``resume`` takes over the complete ``frames`` in it. ``overwrite`` replaces an earlier bag of the command, and drops
    an interrupted run. The constructor raises OutputError, before any work, if anything else is there, or if the output
    is, contains or lies inside an input.
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
        self.frames = 0  # complete ones, of the interrupted run
        self._plan = json.loads(json.dumps(plan))
        self._say = say
        # It holds what an earlier run left while its frames are copied.
        self._earlier = place.with_name(f"{place.name}.partial.earlier")
        check_output(self._earlier, command, inputs)
        found = next((folder for folder in (self._earlier, partial_folder(place)) if folder.exists()), None)
        if written_by(place) == command and not overwrite and not (resume and found):
            raise OutputError(f"{path}: already exists; --overwrite replaces it")
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
            for message in self._complete_frames():
                self.write_raw(*message)
            self.flush()
            shutil.rmtree(self._earlier)
        return self

    def _complete_frames(self) -> Iterator[Message]:
        """The messages of the interrupted run without those of its last frame, some of which may be missing."""
        file = next(self._earlier.glob("*/*.mcap"), None)
        frame: list[Message] = []
        for topic, kind, time_ns, raw in read_messages(file, say=lambda line: None) if file else ():
            if topic == INFO_TOPIC and frame:  # each frame begins with it
                yield from frame
                self.frames += 1
                frame = []
            frame.append((topic, kind, raw, time_ns))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self.partial.exists():
            self._say(f"interrupted: {self.partial} has what was done so far; run again with --resume to go on")
