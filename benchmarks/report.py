"""What the GPU's bench has found: printed as it comes, then as tables and aims, and written to files."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.aims import Aim, aim_table
from benchmarks.core_loop import LoopResult
from benchmarks.rows import Row
from benchmarks.timing import markdown

HEADER = (
    "image size, ms", "variant", "encode", "core pass", "of floor", "decode", "depth frame", "of floor",
    "Euler step", "of floor", "both: core", "both: frame", "node frame",
    "align", "memory, GB",
)  # fmt: skip
LOOP_HEADER = ("core loop, ms", "sharpener", "p50", "p95", "p99", "frame + step", "steps/s", "frames", "dropped")
OPERATOR_HEADER = ("product", "format", "ms", "TFLOP/s")


@dataclass
class Report:
    """`title`: what it was measured on and with. `has_aims`: whether the models are those that the aims are about."""

    title: str
    folder: Path | None
    has_aims: bool = False
    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    loops: list[tuple[object, ...]] = field(default_factory=list)
    operators: list[tuple[object, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=dict)  # GB of each variant's weights

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"# {text}", flush=True)
        self.write()

    def attempt(self, what: str, part: Callable[[], object]) -> bool:
        """Do a part of the bench. If it fails, note why, so that the rest is measured in any case."""
        try:
            part()
        except Exception as error:  # of any class, by torch and by compilers
            traceback.print_exc()
            self.note(f"{what}: failed: {str(error)[:200]}")
            return False
        return True

    def add(self, row: Row, seconds: float) -> None:
        """A row, and what measuring it took, compilation included."""
        if not self.rows:
            print(markdown(HEADER, []), flush=True)
        self.rows.append(row)
        self.seconds.setdefault(row.variant, []).append(seconds)
        print(markdown(HEADER, [_cells(row)]).splitlines()[-1], flush=True)
        self.note(f"{row.variant} {row.size}: took {seconds:.0f} s")

    def add_loop(self, row: Row, busy: bool, frames: int, result: LoopResult) -> None:
        bound = row.frame + (row.step or 0.0)
        self.loops.append(
            (f"{row.variant} {row.size}", "busy" if busy else "idle", result.p50, result.p95, result.p99, bound,
             result.steps_per_second, frames, result.dropped)
        )  # fmt: skip
        print(markdown(LOOP_HEADER, self.loops[-1:]), flush=True)

    def expected_seconds(self, variant: str) -> float:
        """What one more row of a variant will take, at a guess."""
        return max(self.seconds.get(variant, [0.0]))

    @property
    def aims(self) -> list[Aim]:
        return lotus2_aims(self) if self.has_aims else []

    def tables(self) -> str:
        order = sorted(self.rows, key=lambda row: row.width * row.height)
        parts = [self.title, markdown(HEADER, [_cells(row) for row in order])]
        if self.loops:
            parts.append(markdown(LOOP_HEADER, self.loops))
        if self.operators:
            parts.append(markdown(OPERATOR_HEADER, self.operators))
        if self.has_aims:
            parts.append(aim_table(self.aims))
        return "\n\n".join([*parts, "\n".join(f"- {note}" for note in self.notes)]) + "\n"

    def write(self) -> None:
        """All that is known so far; a run that is cut short leaves that."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "gpu.md").write_text(self.tables())
        content: dict[str, Any] = {
            "title": self.title,
            "rows": [asdict(row) for row in self.rows],
            "loops": [dict(zip(LOOP_HEADER, loop, strict=True)) for loop in self.loops],
            "operators": [dict(zip(OPERATOR_HEADER, row, strict=True)) for row in self.operators],
            "aims": [{**asdict(aim), "met": aim.met} for aim in self.aims],
            "held": self.held,
            "notes": self.notes,
        }
        (self.folder / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")


def _cells(row: Row) -> tuple[object, ...]:
    core, frame, step = (
        f"{100 * floor / ms:.0f} %" if floor is not None and ms is not None else None
        for floor, ms in ((row.core_floor, row.core), (row.frame_floor, row.frame), (row.step_floor, row.step))
    )
    return (
        row.size, row.variant, row.encode, row.core, core, row.decode, row.frame, frame, row.step, step,
        row.core_both, row.frame_both, row.node_frame, row.align, row.memory,
    )  # fmt: skip


def lotus2_aims(report: Report, size: str = "640x480") -> list[Aim]:
    """What the models are to reach, on an H200 unless the aim names another card."""
    rows = {row.variant: row for row in report.rows if row.size == size}

    def of(variant: str, name: str) -> Any:
        return getattr(rows[variant], name) if variant in rows else None

    def loop(variant: str, name: str) -> Any:
        found = (dict(zip(LOOP_HEADER, each, strict=True)) for each in report.loops)
        at = f"{variant} {size}"
        return next((each[name] for each in found if (each["core loop, ms"], each["sharpener"]) == (at, "idle")), None)

    def hertz(variant: str, card: str) -> float | None:
        return 1e3 / rows[variant].frame if variant in rows and card in report.title else None

    def ratio(slow: str, fast: str) -> float | None:
        return rows[slow].core / rows[fast].core if slow in rows and fast in rows else None

    def share(variant: str) -> float | None:
        return rows[variant].core_floor / rows[variant].core if variant in rows else None

    return [
        Aim("bfloat16 core pass, share of the rate of products", 0.7, share("bfloat16"), least=True),
        Aim("bfloat16 core pass against plain, times", 2.0, ratio("plain", "bfloat16"), least=True),
        Aim("float8 core pass against bfloat16, times", 1.5, ratio("bfloat16", "float8"), least=True),
        Aim("bfloat16 depth frame, ms", 50.0, of("bfloat16", "frame")),
        Aim("float8 depth frame from host to host, p50, ms", 25.0, loop("float8", "p50")),
        Aim("float8 depth frame from host to host, p99, ms", 30.0, loop("float8", "p99")),
        Aim("float8 align step with a reference, ms", 1.5, of("float8", "align")),
        Aim("Lotus-D depth frame on an H200, Hz", 80.0, hertz("lotus-d", "H200"), least=True),
        Aim("float8 depth frame on an RTX 4090, Hz", 12.0, hertz("float8", "4090"), least=True),
        Aim("float8 frame of depth and normals, ms", 60.0, of("float8", "frame_both")),
        Aim("bfloat16 held, depth with sharpener, GB", 19.0, report.held.get("bfloat16")),
        Aim("float8 held, depth with sharpener, GB", 11.0, report.held.get("float8")),
        Aim("nf4 held, depth with sharpener, GB", 7.0, report.held.get("nf4")),
    ]
