"""Progress of a run: a bar, tensorboard, and a JSON lines file for curves."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from tqdm import tqdm


class TrainingLog:
    """`<folder>/<stage>.jsonl` and `<folder>/tensorboard/<stage>`; lines after step `start` are dropped.

    Only the process with `shown` writes anything.
    """

    def __init__(self, folder: Path, stage: str, start: int, steps: int, *, shown: bool) -> None:
        self.shown = shown
        if not shown:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / f"{stage}.jsonl"
        kept = [line for line in read_progress(self._path) if line["step"] <= start]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._before = kept[-1]["seconds"] if kept else 0.0
        self._started = time.monotonic()
        self._writer = SummaryWriter(folder / "tensorboard" / stage, purge_step=start or None)
        self._bar = tqdm(desc=stage, initial=start, total=steps, unit="step", mininterval=5)

    def report(self, step: int, loss: float, learning_rate: float) -> None:
        if not self.shown:
            return
        seconds = self._before + time.monotonic() - self._started
        line = {"step": step, "loss": loss, "learning_rate": learning_rate, "seconds": round(seconds, 1)}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._writer.add_scalar("loss", loss, step)
        self._writer.add_scalar("learning_rate", learning_rate, step)
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def show(self, step: int, panels: Mapping[str, Tensor]) -> None:
        """Images (3, H, W) in [0, 1] by name."""
        for name, panel in panels.items():
            self._writer.add_image(name, panel, step)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *error: object) -> None:
        if self.shown:
            self._bar.close()
            self._writer.close()


def read_progress(path: Path) -> list[dict[str, float]]:
    """The lines of a stage's file; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
