"""A recording played through the running node, and what came out as pictures, a cloud, a bag and a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from lotus2_ros import __version__
from lotus2_ros.bags import InputError, Recording, open_recording, read_messages, write_frames
from lotus2_ros.bags.writer import COMPRESSED_TOPIC
from lotus2_ros.config.output import check_output, mark, marked_by
from lotus2_ros.demo.results import read_results, save_shown_frame
from lotus2_ros.demo.scene import SCENE_FRAMES, SCENE_RATE, write_scene_bag
from lotus2_ros.demo.session import record_node
from lotus2_ros.demo.table import table
from lotus2_ros.model.load import BUNDLED
from lotus2_ros.model.manifest import MANIFEST, ModelSettings


def run_demo(
    inputs: Sequence[Path],
    output: Path,
    *,
    frames: int,
    rate: float | None = None,
    topic: str | None = None,
    reference_topic: str | None = None,
    camera_info_topic: str | None = None,
    fov: float | None = None,
    model: str | None = None,
    parameters: Sequence[str] = (),
) -> None:
    """Play ``inputs`` (none: a rendered room) through the node and write the results to the folder ``output``.

    ``rate`` is the speed of playing, by default that of the recording; ``parameters`` of the node as NAME:=VALUE.
    Raises ValueError or FileNotFoundError on bad input, SessionError when the node, the player or the recorder fails.
    """
    if rate is None:
        rate = 1.0 if inputs else SCENE_RATE
    if not 0 < rate < float("inf") or frames <= 0:
        raise ValueError(f"expected a positive rate and number of frames, got {rate:g} and {frames}")
    start = time.monotonic()
    check_output(output, "demo", inputs, written_by=demo_of)
    if inputs:
        recording = open_recording(
            inputs,
            topic=topic,
            reference_topic=reference_topic,
            camera_info_topic=camera_info_topic,
            fov=fov,
            limit=frames,
        )
    mark(output, "demo")
    if inputs:
        source, count = record_input(recording, output, frames)
    else:
        source, count = render_room(output, frames)
    target = output / "output.mcap"
    print(f"playing at {rate:g} x the speed of the recording")
    record_node(
        source, target, frames=count, rate=rate, parameters=node_parameters(source, model, parameters), logs=output
    )
    results = read_results(source, target)
    save_shown_frame(output, target, results)
    print(table(results, count))
    if inputs and recording.reference and not any(report.metric for report in results.reports):
        print(f"{recording.reference}: the reference gave no metric scale")
    print(
        f"\n{output}: preview.png, turning.gif, points.ply, output.mcap (Foxglove, ros2 bag play), {source.name}, logs"
    )
    print(f"done in {time.monotonic() - start:.0f} s")


def node_parameters(source: Path, model: str | None, given: Sequence[str]) -> list[str]:
    """The parameters as given, and those that the demo sets."""
    parameters = list(given)
    if model:
        parameters.append(f"model.path:={model}")
    else:  # the bundled model sharpens only when asked to, and the demo shows all outputs
        steps = ModelSettings.read(BUNDLED / MANIFEST).sharpener_steps
        parameters.insert(0, f"sharp.steps:={steps}")
    if next(read_messages(source, [COMPRESSED_TOPIC]), None) is not None:
        parameters.append("input.image_transport:=compressed")
    return parameters


def render_room(output: Path, frames: int) -> tuple[Path, int]:
    """A bag of a rendered walk through a room, kept in ``output`` for the next demo, and the number of its images."""
    frames = min(frames, SCENE_FRAMES)
    path = output / f"room-{__version__}-{frames}.mcap"
    if not path.is_file():
        print(f"rendering {frames} frames of a room (kept as {path}) ...", flush=True)
        write_scene_bag(path, frames)
    return path, frames


def record_input(recording: Recording, output: Path, limit: int) -> tuple[Path, int]:
    """A recording as the one bag that is played, and the number of its images, at most ``limit``.

    Raises InputError if not one image can be decoded.
    """
    path = output / "input.mcap"
    frames = write_frames(path, recording.frames())
    if not frames:
        raise InputError(f"{recording.name}: no image that can be decoded")
    limited = f" (the first {frames}; use --frames for more)" if frames == limit else ""
    print(f"input: {recording.name}: {frames} frames{limited}\ncamera: {recording.camera}", flush=True)
    return path, frames


def demo_of(folder: Path) -> str | None:
    """The command that made a folder; demos of earlier versions are known by their logs."""
    return "demo" if (folder / "player.log").is_file() and (folder / "recorder.log").is_file() else marked_by(folder)
