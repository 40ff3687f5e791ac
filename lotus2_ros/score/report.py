"""The scores as a page: one row for each camera, and a picture of a frame with the median error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lotus2_ros.score.score import CameraScore
from lotus2_ros.view.preview import save_preview

HEAD = "| camera | AbsRel | delta1 | coverage | scored | failed | latency, ms: median, p95 | drops at its rate |"


def write_report(folder: Path, cameras: Sequence[CameraScore], share: float) -> Path:
    """``report.md`` and its pictures in a folder that exists. Returns its path."""
    first = cameras[0]
    resolution = f"{first.resolution} px" if first.resolution else "its own resolution"
    lines = [
        "# Depth on these recordings",
        "",
        f"Model {first.model.name}, {first.model.precision} on {first.model.device}, {resolution}. "
        f"{100 * share:.0f} % of the measurements, in tiles of the image, were held out; errors are measured there.",
        "",
        HEAD,
        "|---" * (HEAD.count("|") - 1) + "|",
        *(_row(camera) for camera in cameras),
        "",
        "AbsRel, delta1 and coverage are medians over the scored frames: the mean of |depth - measured| / measured, "
        "the share within a factor of 1.25, and the share of held-out measurements where there is depth. Latency is "
        "that of the model and the scale on this machine; drops are the frames that a node of this speed would have "
        "dropped at the rate of the recording.",
    ]
    for number, camera in enumerate(cameras, start=1):
        lines += ["", f"## {camera.name}", "", *_details(camera)]
        if camera.shown is not None:
            save_preview(folder / f"camera{number}.png", [camera.shown])
            lines += ["", f"![a frame with the median error](camera{number}.png)"]
    path = folder / "report.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _row(camera: CameraScore) -> str:
    ms = 1e3 * np.array(camera.seconds)
    cells = [
        camera.name,
        f"{camera.median('abs_rel'):.3f}",
        f"{camera.median('delta1'):.3f}",
        f"{100 * camera.median('coverage'):.0f} %",
        f"{len(camera.scores)} of {camera.frames}",
        str(sum(camera.failures.values())),
        f"{np.percentile(ms, 50):.0f}, {np.percentile(ms, 95):.0f}",
        f"{camera.drops} of {len(camera.stamps)}",
    ]
    return f"| {' | '.join(cells)} |"


def _details(camera: CameraScore) -> list[str]:
    errors = [score.error.abs_rel for score in camera.scores]
    low, high = np.percentile(errors, [5, 95])
    lines = [f"- AbsRel of 90 % of the frames: {low:.3f} to {high:.3f}"]
    lines.append("- scale: " + ", ".join(f"{source} {count} frames" for source, count in camera.sources.items()))
    lines += [f"- {count} x {note}" for note, count in camera.notes.most_common(3) if count]
    lines += [f"- failed, {count} x {reason}" for reason, count in camera.failures.most_common(3)]
    stages = list(camera.latencies[-1])
    medians = [1e3 * float(np.median([latency.get(stage, 0.0) for latency in camera.latencies])) for stage in stages]
    lines.append("- ms by stage: " + ", ".join(f"{s} {ms:.0f}" for s, ms in zip(stages, medians, strict=True)))
    return lines
