"""The results of the node, read from the recorded bag."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lotus2_ros.bags import read_messages
from lotus2_ros.bags.frames import FRAME_REPORT, stamp_ns
from lotus2_ros.bags.writer import COMPRESSED_TOPIC, IMAGE_TOPIC, INFO_TOPIC, REFERENCE_TOPIC
from lotus2_ros.config.names import NODE_PREFIX
from lotus2_ros.demo.scene import TRUTH_TOPIC
from lotus2_ros.demo.session import SessionError
from lotus2_ros.evaluation.metrics import DepthError, depth_error
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.depth import valid_depth
from lotus2_ros.ros.messages import MessageError, camera_from_info, depth_to_tensor, image_to_tensor
from lotus2_ros.ros.serialized import deserialize
from lotus2_ros.ros.topics import PREFIXES
from lotus2_ros.ros.viewing import cloud_tensors, float_image
from lotus2_ros.view.ply import save_ply
from lotus2_ros.view.preview import Row, save_preview
from lotus2_ros.view.turning import save_turning

STAGES = {stage: NODE_PREFIX + prefix for stage, prefix in PREFIXES.items()}
TITLES = {"core": "core predictor", "sharpener": "detail sharpener"}
FLOAT_TOPICS = ("disparity/image", "depth/image", "relative/depth/image", "normals/image")
TRIED = 10  # frames, until one can be shown


@dataclass
class Results:
    """Counts by topic, reports, stamps by topic, and depth errors by stage."""

    truth: str  # the topic that depth was compared with; empty: none
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    stamps: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    reports: list[Any] = field(default_factory=list)
    errors: dict[str, list[DepthError]] = field(default_factory=lambda: defaultdict(list))


def read_results(source: Path, target: Path) -> Results:
    """Everything that the table shows. Raises SessionError when the node answered no frame."""
    topic, truth = read_truth(source)
    results = Results(topic)
    for name, kind, _, raw in read_messages(target):
        item = deserialize(raw, kind)
        stamp = stamp_ns(item)
        results.counts[name] += 1
        results.stamps[name].append(stamp)
        if kind == FRAME_REPORT:
            results.reports.append(item)
        for stage, prefix in STAGES.items():
            if name in (f"{prefix}depth/image", f"{prefix}relative/depth/image") and stamp in truth:
                error = error_where_known(float_image(item), truth[stamp], is_metric="relative" not in name)
                if error is not None:
                    results.errors[stage].append(error)
    if not results.reports:
        raise SessionError(f"the node answered none of the frames; {target.parent / 'node.log'} says why")
    return results


def read_truth(source: Path) -> tuple[str, dict[int, Tensor]]:
    """Exact depth (m) by stamp where the bag has it, else the reference depth that the node got as well."""
    for topic in (TRUTH_TOPIC, REFERENCE_TOPIC):
        found = {}
        for _, kind, _, raw in read_messages(source, [topic]):
            item = deserialize(raw, kind)
            with suppress(MessageError):  # without one valid pixel: nothing to compare with
                found[stamp_ns(item)] = depth_to_tensor(item)
        if found:
            return topic, found
    return "", {}


def error_where_known(depth: Tensor, truth: Tensor, is_metric: bool) -> DepthError | None:
    """Error of a depth image where both are known; relative depth is scaled by the median.

    None if they are of different sizes or nowhere known both.
    """
    if depth.shape != truth.shape:
        return None
    both = valid_depth(depth) & valid_depth(truth)
    if not bool(both.any()):
        return None
    depth, truth = depth[both], truth[both]
    if not is_metric:
        depth = depth * (truth / depth).median()
    return depth_error(depth, truth)


def candidate_stamps(results: Results) -> list[int]:
    """The frames to show, the best first: from the middle of the sharpened ones outward, then of all others."""
    candidates: dict[int, None] = {}
    for stage in ("sharpener", "core"):
        stamps = sorted({stamp_ns(report) for report in results.reports if report.stage == stage})
        middle = len(stamps) // 2
        candidates |= dict.fromkeys(sorted(stamps, key=lambda s: abs(stamps.index(s) - middle)))
    return list(candidates)


def save_shown_frame(folder: Path, target: Path, results: Results) -> None:
    """The pictures and the cloud of the best frame that has all its messages; a damaged frame is passed over.

    Raises SessionError when there is none.
    """
    reason = ""
    for stamp in candidate_stamps(results)[:TRIED]:
        found = messages_of(target, stamp)
        try:
            save_picture(folder / "preview.png", found)
            save_cloud(folder / "points.ply", found)
            save_animation(folder / "turning.gif", found)
            return
        except (KeyError, ValueError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
    raise SessionError(f"none of the recorded frames can be shown ({reason}); see {target}")


def messages_of(target: Path, stamp: int) -> dict[str, Any]:
    """Every message with this stamp, by topic."""
    found = {}
    for topic, kind, _, raw in read_messages(target):
        item = deserialize(raw, kind)
        if stamp_ns(item) == stamp:
            found[topic] = item
    return found


def input_of(found: dict[str, Any]) -> tuple[Tensor, Camera]:
    """The image (H, W, 3) uint8 RGB and the camera of a frame's messages. Raises KeyError, MessageError."""
    image = image_to_tensor(found.get(IMAGE_TOPIC) or found[COMPRESSED_TOPIC])
    return image, camera_from_info(found[INFO_TOPIC], image.shape[0], image.shape[1], "cpu", rectified=False)


def save_picture(path: Path, found: dict[str, Any]) -> None:
    """The preview of a frame's messages: a row for each stage that answered it. Raises KeyError, ValueError."""
    image, camera = input_of(found)
    rows = []
    for stage, prefix in STAGES.items():
        known = {name: float_image(found[prefix + name]) for name in FLOAT_TOPICS if prefix + name in found}
        if not known:
            continue
        is_metric = "depth/image" in known
        depth = known.get("depth/image", known.get("relative/depth/image"))
        disparity, normals = known.get("disparity/image"), known.get("normals/image")
        rows.append(Row(TITLES[stage], image, disparity, depth, normals, camera, is_metric))
    if not rows:
        raise ValueError("expected results of the frame in the recording, got none")
    save_preview(path, rows)


def save_animation(path: Path, found: dict[str, Any]) -> None:
    """The image beside the turning cloud of the sharpest depth; no file if there is none with a point."""
    path.unlink(missing_ok=True)
    names = (prefix + name for prefix in reversed(STAGES.values()) for name in ("depth/image", "relative/depth/image"))
    depth = next((float_image(found[name]) for name in names if name in found), None)
    if depth is not None:
        image, camera = input_of(found)
        with suppress(ValueError):
            save_turning(path, image, depth, camera)


def save_cloud(path: Path, found: dict[str, Any]) -> None:
    """The sharpest cloud of a frame's messages, in the camera's optical frame."""
    for prefix in reversed(STAGES.values()):
        for name in ("points", "relative/points"):
            if prefix + name in found:
                save_ply(path, *cloud_tensors(found[prefix + name]))
                return
    path.unlink(missing_ok=True)
