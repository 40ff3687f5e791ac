"""`export.json`, the manifest of an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lotus2_ros.model.manifest import Manifest, Section, Task
from lotus2_ros.model.weights import CheckpointError

EXPORT = "export.json"
FORMAT = 1
UNCERTAINTY = "uncertainty"  # the graph of a model that predicts it
Precision = Literal["fp32", "fp16"]
Side = Field(ge=1, le=65536)


class ExportedGraph(Section):
    """A graph in `<name>.onnx`: names and shapes of its float32 inputs, in order, and of its output."""

    inputs: dict[str, tuple[int, ...]]
    output: str
    shape: tuple[int, ...]
    error: float | None = None


class Schedule(Section):
    """The steps of a sharpening: noise levels, one more than there are steps, and the timestep of each step."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Schedule:
        if len(self.sigmas) != len(self.timesteps) + 1:
            raise ValueError(f"expected {len(self.timesteps) + 1} sigmas, got {len(self.sigmas)}")
        return self


class ExportManifest(Manifest):
    """size: height and width of the images that the graphs take. multiple: as of the model that was exported.
    noise_channels: channels of noise behind the latent that a core predictor takes. sharpened: tasks with a sharpener.
    schedules: by the number of steps."""

    precision: Precision
    opset: int
    size: tuple[Annotated[int, Side], Annotated[int, Side]]
    multiple: int = Side
    upsampling: str
    noise_channels: int = Field(ge=0)
    sharpened: tuple[Task, ...]
    schedules: dict[str, Schedule]
    graphs: dict[str, ExportedGraph]

    @classmethod
    def of(cls, folder: Path) -> ExportManifest:
        """Of an exported folder. Raises CheckpointError that names file and key."""
        manifest = cls.read(folder / EXPORT)
        if manifest.format != FORMAT:
            raise CheckpointError(f"{folder / EXPORT}: expected format {FORMAT}, got {manifest.format}")
        return manifest


def is_exported(folder: Path) -> bool:
    return (folder / EXPORT).is_file()
