"""Checks of what may set the metric scale."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lotus2_ros.config.names import DEPTH_INPUT, IMAGE_INPUT, INFO_INPUT, POINTS_INPUT
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.projection import sparse_depth
from lotus2_ros.ros.clouds import points_to_tensor
from lotus2_ros.ros.doctor.camera import check_stream, connected
from lotus2_ros.ros.doctor.evidence import Evidence, Stream
from lotus2_ros.ros.doctor.findings import Checks, Finding, hint, ok, wrong
from lotus2_ros.ros.messages import MessageError, camera_from_info, depth_to_tensor
from lotus2_ros.ros.references import MAX_AHEAD
from lotus2_ros.ros.transforms import BY_TF, Transforms


def check_references(evidence: Evidence) -> Iterator[Finding]:
    streams = [evidence.streams[name] for name in (DEPTH_INPUT, POINTS_INPUT) if evidence.streams[name].exists]
    if not streams:
        yield _without_references(evidence)
    for stream in streams:
        if stream.times:
            yield from check_stream(stream)
            yield from _pace(stream, evidence)
        else:
            found = stream.failures[0] if stream.failures else "it has a publisher, but nothing came"
            yield wrong(f"{stream.topic}: {found}", "measured depth", "the sensor's driver, the Fast DDS profile")


def _without_references(evidence: Evidence) -> Finding:
    """What else gives meters."""
    scale = evidence.config.scale
    named = {
        f"scale.camera_height of {scale.camera_height:g} m": scale.camera_height > 0,
        f"the camera's motion in scale.fixed_frame {scale.fixed_frame!r}": scale.fixed_frame,
        f"scale.metric_model {scale.metric_model!r}": scale.metric_model,
    }
    if any(named.values()):
        return ok(f"none, {' and '.join(text for text, is_given in named.items() if is_given)}")
    expected = "a reference for depth in meters"
    odometry = sorted(topic for topic, kind in evidence.topics.items() if kind == "nav_msgs/msg/Odometry")
    if odometry:
        found = f"no measured depth: meters come from the camera's motion alone, if odometry is {' or '.join(odometry)}"
        return hint(
            found, f"{expected}, or odometry", f"odometry:={odometry[0]}, and a camera that moves (docs/metric.md)"
        )
    advice = "reference_depth:=TOPIC, reference_points:=TOPIC, odometry:=TOPIC or scale.camera_height (docs/metric.md)"
    return hint("no measured depth: the scale stays relative", expected, advice)


def _pace(stream: Stream, evidence: Evidence) -> Iterator[Finding]:
    """Whether references come often enough, and at the images' time."""
    images, max_age = evidence.streams[IMAGE_INPUT].stamps, evidence.config.scale.max_age
    if 0 < stream.rate < 1 / max_age:
        advice = f"scale.max_age:={2 / stream.rate:.1f}, or a faster sensor"
        yield hint(f"{stream.topic}: {stream.rate:.2f} Hz", f"one within scale.max_age of {max_age:g} s", advice)
    if not images:
        return
    ahead = median(stream.stamps) * 1e-9 - median(images) * 1e-9
    if abs(ahead) > max(max_age, MAX_AHEAD):
        side = "ahead of" if ahead > 0 else "behind"
        expected = f"at most {max(max_age, MAX_AHEAD):g} s between them"
        yield wrong(f"{stream.topic}: stamps {abs(ahead):.1f} s {side} the images'", expected, "synchronize the clocks")


def check_depth(evidence: Evidence) -> Iterator[Finding]:
    """The depth images, by the node's rules: encoding, some valid pixels, the camera's frame."""
    stream = evidence.streams[DEPTH_INPUT]
    for message in stream.samples.values():
        try:
            depth = depth_to_tensor(message, evidence.config.input)
        except MessageError as error:
            yield wrong(f"{stream.topic}: {error}", mend="32FC1 in meters or 16UC1 in millimeters")
            continue
        frame, camera_frame = message.header.frame_id, evidence.camera_frame
        if frame and camera_frame and frame != camera_frame:
            advice = "register it to the camera (depth_image_proc/register), or give points on reference/points"
            yield wrong(f"{stream.topic}: frame {frame!r}", f"the image's, {camera_frame!r}", advice)
        else:
            yield ok(_covered(stream, depth))


def check_points(evidence: Evidence) -> Iterator[Finding]:
    """The clouds, by the node's rules: fields, a transform to the camera, some points in its view."""
    stream, points_transform = evidence.streams[POINTS_INPUT], evidence.config.scale.points_transform
    for message in stream.samples.values():
        try:
            points = points_to_tensor(message)
        except MessageError as error:
            yield wrong(f"{stream.topic}: {error}", mend="the sensor driver's layout of points")
            continue
        frame, camera_frame = message.header.frame_id, evidence.camera_frame
        if points_transform == BY_TF and frame and camera_frame and frame != camera_frame:
            yield _transform(stream, frame, camera_frame, evidence.links)
            continue
        points = Transforms().to_camera(points, message.header, camera_frame, points_transform)
        camera = _camera(evidence)
        if camera is None:
            continue
        depth = sparse_depth(points, camera)
        if bool(torch.isfinite(depth).any()):
            yield ok(_covered(stream, depth))
        else:
            advice = "scale.points_transform, or the frame_id of the points"
            yield wrong(f"{stream.topic}: the camera sees none of {len(points)} points", "some in view", advice)


def _transform(stream: Stream, frame: str, camera_frame: str, links: set[tuple[str, str]] | None) -> Finding:
    expected = f"a transform from {frame!r} to {camera_frame!r}"
    advice = f"ros2 run tf2_ros static_transform_publisher --frame-id {camera_frame} --child-frame-id {frame}"
    if links is None:
        return wrong(f"{stream.topic}: tf2 is not installed", expected, "scale.points_transform:='X Y Z QX QY QZ QW'")
    if camera_frame in connected(links, frame):
        return ok(f"{stream.topic}: /tf connects {frame!r} with {camera_frame!r}")
    advice += ", or scale.points_transform:='X Y Z QX QY QZ QW'"
    return wrong(f"{stream.topic}: /tf does not connect its frame with the camera's", expected, advice)


def _camera(evidence: Evidence) -> Camera | None:
    info: Any = evidence.streams[INFO_INPUT].newest
    for height, width in evidence.sizes:
        if info is None:
            fov = evidence.config.input.fov
            return Camera.from_fov(width, height, fov) if fov else None
        try:
            return camera_from_info(info, height, width, "cpu", rectified=evidence.rectified)
        except MessageError:
            return None  # the check of camera_info says why
    return None


def _covered(stream: Stream, depth: Tensor) -> str:
    valid = depth[torch.isfinite(depth)]
    share = 100 * len(valid) / depth.numel()
    return f"{stream.topic}: {share:.1f} % of the pixels are measured, {valid.min():.2f} to {valid.max():.2f} m"


REFERENCES: Checks[Evidence] = {
    "references": check_references,
    DEPTH_INPUT: check_depth,
    POINTS_INPUT: check_points,
}
