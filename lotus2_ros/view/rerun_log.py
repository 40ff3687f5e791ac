"""Results of the node in the Rerun viewer: pictures, clouds, and how scale, latency and counts go over time."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lotus2_ros.view.preview import depth_range

if TYPE_CHECKING:
    from typing_extensions import Self

MISSING = "rerun-sdk is not installed; to view results: python -m pip install 'lotus2_ros[view]'"
APPLICATION = "lotus2_ros"
MAX_POINTS = 60_000  # of a cloud: the viewer keeps every frame in memory
STAGES = {"core": "coarse", "sharpener": "sharp"}  # the entity of each stage


class RerunLog:
    """Logs results by the stamp of their image; to a file with ``save``, else to a viewer that it starts.

    The layout comes with the recording: picture, depth and normals on the left, both clouds side by side, time series
    below. The file grows as ``<name>.partial`` and moves to its place at the end of the block; what a block leaves with
    an exception is removed. Raises ValueError if rerun-sdk is missing.
    """

    def __init__(self, save: Path | None = None, *, name: str = "") -> None:
        try:
            import rerun
        except ImportError:
            raise ValueError(MISSING) from None
        self._rerun: Any = rerun
        self._save = save
        self._log = rerun.RecordingStream(APPLICATION)
        if name:
            self._log.send_recording_name(name)
        if save is None:
            # The viewer's program is beside this Python, also where no environment is activated.
            os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
            self._log.spawn(default_blueprint=blueprint(), memory_limit="25%")
        else:
            self._partial = save.with_name(f"{save.name}.partial")
            self._log.save(self._partial, default_blueprint=blueprint())
        for entity in STAGES.values():  # optical frames: x right, y down, z forward
            self._log.log(entity, rerun.ViewCoordinates.RDF, static=True)

    def at(self, stamp_ns: int) -> None:
        """The time of everything that is logged from now on, in ns."""
        self._log.set_time("stamp", timestamp=np.datetime64(stamp_ns, "ns"))

    def image(self, pixels: Tensor) -> None:
        """(H, W, 3) uint8 RGB."""
        self._log.log("camera/image", self._rerun.Image(pixels.numpy()).compress(jpeg_quality=85))

    def depth(self, stage: str, depth: Tensor, *, is_metric: bool) -> None:
        """(H, W) along z, NaN invalid, +Inf sky; in meters or up to one unknown factor."""
        near, far = depth_range(depth)
        image = self._rerun.DepthImage(
            np.nan_to_num(depth.numpy(), nan=0.0, posinf=0.0).astype(np.float32),
            meter=1.0, depth_range=(near, far), colormap="turbo",
        )  # fmt: skip
        self._log.log(f"camera/depth/{STAGES[stage]}", image)
        self._log.log("scale/metric", self._rerun.StateChange(state="metric" if is_metric else "relative"))

    def normals(self, stage: str, colors: Tensor) -> None:
        """(H, W, 3) uint8, normals as colors."""
        self._log.log(f"camera/normals/{STAGES[stage]}", self._rerun.Image(colors.numpy()).compress(jpeg_quality=90))

    def points(self, stage: str, points: Tensor, colors: Tensor) -> None:
        """points (N, 3) in the optical frame, NaN invalid, and their colors (N, 3) uint8."""
        points, colors = points.reshape(-1, 3), colors.reshape(-1, 3)
        finite = points.isfinite().all(-1)
        points, colors = points[finite], colors[finite]
        step = -(-len(points) // MAX_POINTS) or 1
        cloud = self._rerun.Points3D(
            points[::step].numpy(), colors=colors[::step].numpy(), radii=self._rerun.Radius.ui_points(1.5)
        )
        self._log.log(f"{STAGES[stage]}/points", cloud)

    def report(
        self, stage: str, source: str, values: Mapping[str, float], latency_ms: Mapping[str, float], note: str = ""
    ) -> None:
        """A FrameReport: the source of the scale, numbers by path below ``scale`` or ``frames``, and ms by stage."""
        if stage == "core":
            self._log.log("scale/source", self._rerun.StateChange(state=source))
            for path, value in values.items():
                self._log.log(path, self._rerun.Scalars(value))
            if note:
                self._log.log("scale/note", self._rerun.TextLog(note, level="WARN"))
        for name, ms in latency_ms.items():
            self._log.log(f"latency/{STAGES[stage]}/{name}", self._rerun.Scalars(ms))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.flush()
        self._log.disconnect()
        if self._save is not None and kind is None:
            self._partial.replace(self._save)
        elif self._save is not None:
            self._partial.unlink()


def blueprint() -> Any:
    """The layout of the viewer."""
    import rerun.blueprint as rrb

    pictures = rrb.Vertical(
        rrb.Spatial2DView(origin="camera/image", name="image"),
        rrb.Tabs(
            rrb.Spatial2DView(origin="camera/depth/coarse", name="depth"),
            rrb.Spatial2DView(origin="camera/depth/sharp", name="depth, sharp"),
            active_tab=0,
        ),
        rrb.Tabs(
            rrb.Spatial2DView(origin="camera/normals/coarse", name="normals"),
            rrb.Spatial2DView(origin="camera/normals/sharp", name="normals, sharp"),
            active_tab=0,
        ),
    )
    clouds = rrb.Horizontal(
        rrb.Spatial3DView(origin="coarse", name="core predictor", background=(24, 26, 30)),
        rrb.Spatial3DView(origin="sharp", name="detail sharpener", background=(24, 26, 30)),
    )
    series = rrb.Horizontal(
        rrb.TimeSeriesView(origin="latency", name="latency, ms"),
        rrb.TimeSeriesView(origin="frames", name="frames"),
        rrb.Vertical(
            rrb.StateTimelineView(origin="scale", name="source of the scale"),
            rrb.TextLogView(origin="scale/note", name="notes"),
        ),
    )
    return rrb.Blueprint(
        rrb.Horizontal(pictures, rrb.Vertical(clouds, series, row_shares=[2, 1]), column_shares=[1, 3]),
        rrb.TimePanel(timeline="stamp", state="collapsed"),
        rrb.SelectionPanel(state="hidden"),
        rrb.BlueprintPanel(state="hidden"),
    )
