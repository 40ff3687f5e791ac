"""Checks of one camera's messages, of a running graph as of a recording."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from lotus2_ros.config.names import IMAGE_INPUT, INFO_INPUT, option_of
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.ros.doctor.evidence import Evidence, Stream, described, types_of
from lotus2_ros.ros.doctor.findings import Checks, Finding, hint, ok, wrong
from lotus2_ros.ros.messages import MessageError, camera_from_info

MOST = 0.8  # of the images: a camera's first and last may lack their camera_info
SHORT_PERIOD = 1 / 30  # seconds between images, of a single one
MAX_CLOCK_OFFSET = 1.0  # seconds between a stamp and the clock
CALIBRATE = "the driver's camera_info_url, or ros2 run camera_calibration cameracalibrator"


def check_image(evidence: Evidence) -> Iterator[Finding]:
    stream = evidence.streams[IMAGE_INPUT]
    if not stream.times:
        yield absent(evidence, IMAGE_INPUT)
        return
    yield from check_stream(stream)
    for message, pixels in evidence.images:
        if isinstance(pixels, MessageError):
            yield wrong(f"{stream.topic}: {pixels}", mend="the driver's encoding, or image_proc in front of the node")
        if not message.header.frame_id:
            yield hint(f"{stream.topic} has no frame_id", "the camera's optical frame", "the driver's frame_id")


def check_camera_info(evidence: Evidence) -> Iterator[Finding]:
    """Whether the camera of every size of image can be computed, by the node's own functions."""
    stream, fov = evidence.streams[INFO_INPUT], evidence.config.input.fov
    if not stream.times:
        yield ok(f"none, input.fov of {fov:g} degrees") if fov else absent(evidence, INFO_INPUT)
        return
    yield from check_stream(stream)
    for info in stream.samples.values():
        calibration = Calibration.of(info)
        if not calibration.is_calibrated(rectified=evidence.rectified) and fov:
            yield hint(f"{stream.topic} is uncalibrated, input.fov of {fov:g} degrees stands in for it")
            continue
        for height, width in evidence.sizes or [(info.height, info.width)]:
            try:
                camera = camera_from_info(info, height, width, "cpu", rectified=evidence.rectified)
            except MessageError as error:
                text = str(error).removeprefix("camera_info: ")
                yield wrong(f"{stream.topic}: {text}", mend="" if "input.fov" in text else CALIBRATE)
                continue
            if doubt := calibration.doubt(rectified=evidence.rectified):
                yield wrong(f"{stream.topic}: {doubt}", mend=CALIBRATE)
            else:
                yield ok(view_of(camera))


def view_of(camera: Camera) -> str:
    """The intrinsics and the angles that the image covers, in words."""
    fx, fy = float(camera.K[0, 0]), float(camera.K[1, 1])
    cx, cy = float(camera.K[0, 2]), float(camera.K[1, 2])
    across, down = (2 * math.degrees(math.atan(n / 2 / f)) for n, f in ((camera.width, fx), (camera.height, fy)))
    return f"fx {fx:.1f}, fy {fy:.1f}, cx {cx:.1f}, cy {cy:.1f}: a view of about {across:.0f} x {down:.0f} degrees"


def check_rectification(evidence: Evidence) -> Iterator[Finding]:
    topic, info = evidence.streams[IMAGE_INPUT].topic, evidence.streams[INFO_INPUT].newest
    if info is None:
        return
    distorted = any(info.d)
    if evidence.rectified:
        yield ok(f"{topic} is taken as rectified: P of camera_info holds")
    elif distorted and "rect" in topic.lower():
        expected = "a name that starts with image_rect"
        yield hint(f"{topic} is taken as raw by its name", expected, "input.rectified:=yes if it is rectified")
    else:
        lens = info.distortion_model if distorted else "no distortion"
        yield ok(f"{topic} is taken as raw: K and D of camera_info hold ({lens})")


def check_stamps(evidence: Evidence) -> Iterator[Finding]:
    """Whether images find their camera_info, by the rule of the node's synchronizer, and are of this clock."""
    images, infos = evidence.streams[IMAGE_INPUT], evidence.streams[INFO_INPUT]
    for stream in (images, infos):
        if 0 in stream.stamps:
            yield wrong(f"{stream.topic} has stamps of 0", "the time of exposure", "the driver sets header.stamp")
        if any(after < before for before, after in pairwise(stream.stamps)):
            yield hint(f"the stamps of {stream.topic} go back", "times that grow", "one publisher for one topic")
    if images.stamps and infos.stamps:
        yield _skew(images, infos, evidence.config.input.sync_slop)
    if evidence.is_live and images.stamps:
        yield from _clock(images, "/clock" in evidence.topics)


def _skew(images: Stream, infos: Stream, slop: float) -> Finding:
    offsets = [min((info - image for info in infos.stamps), key=abs) * 1e-9 for image in images.stamps]
    matched = sum(abs(offset) <= slop for offset in offsets)
    text = f"{matched} of {len(offsets)} images have a camera_info within {slop:g} s of their stamp"
    if matched >= MOST * len(offsets):
        return ok(text)
    typical = median(offset for offset in offsets if abs(offset) > slop)
    text += f", the others' nearest is typically {1000 * typical:+.3g} ms off"
    if max(images.publishers or 0, infos.publishers or 0) > 1:  # a slop would give images the camera_info of others
        return wrong(text, "equal stamps", "one publisher for each of the two topics")
    periods = [(after - before) * 1e-9 for before, after in pairwise(images.stamps)]
    if 2 * abs(typical) < median(periods or [SHORT_PERIOD]):
        enough = math.ceil(1000 * abs(typical) + 1) / 1000
        return wrong(text, "equal stamps", f"input.sync_slop:={enough:g}")
    return wrong(text, "equal stamps", "publish camera_info with every image and with its stamp")


def _clock(images: Stream, simulated: bool) -> Iterator[Finding]:
    behind = median(received - stamp * 1e-9 for received, stamp in zip(images.times, images.stamps, strict=True))
    if abs(behind) <= MAX_CLOCK_OFFSET:
        yield ok(f"images arrive {1000 * behind:.0f} ms after their stamp")
    elif simulated:
        yield ok("the images' time is not this machine's, /clock is there")
    else:
        advice = "synchronize the clocks (chrony); for a bag or a simulator publish /clock and set use_sim_time:=true"
        yield hint(f"images arrive {behind:.1f} s after their stamp", f"at most {MAX_CLOCK_OFFSET:g} s", advice)


def check_tf(evidence: Evidence) -> Iterator[Finding]:
    frame = evidence.camera_frame
    if not frame:
        return
    if evidence.links is None:
        yield hint("not checked: tf2_msgs is not installed", mend="use a ROS distribution, or scale.points_transform")
    elif any(frame in link for link in evidence.links):
        yield ok(f"{frame!r}, the camera's frame, is connected to {len(connected(evidence.links, frame)) - 1} others")
    else:
        advice = f"ros2 run tf2_ros static_transform_publisher --frame-id base_link --child-frame-id {frame}"
        yield hint(f"{frame!r}, the camera's frame, is not on /tf", "a transform, for whoever uses the clouds", advice)


def connected(links: set[tuple[str, str]], frame: str) -> set[str]:
    """The frames that transforms connect with ``frame``, itself included."""
    found, waiting = {frame}, [frame]
    while waiting:
        at = waiting.pop()
        near = {child if parent == at else parent for parent, child in links if at in (parent, child)} - found
        found |= near
        waiting += near
    return found


def check_stream(stream: Stream) -> Iterator[Finding]:
    """How many messages a topic had and how fast; which could not be read, or are missing between the others."""
    kinds = "; ".join(dict.fromkeys(described(message) for message in stream.samples.values()))
    rate = f", {stream.rate:.1f} Hz" if stream.rate else ""
    frames = ", ".join(sorted({message.header.frame_id for message in stream.samples.values()}))
    yield ok(f"{stream.topic}: {len(stream.times)} messages{rate}, {kinds}, frame {frames!r}")
    for text in dict.fromkeys(stream.failures):
        yield wrong(f"{stream.topic}: {stream.failures.count(text)} messages cannot be read: {text}")
    periods = [after - before for before, after in pairwise(stream.stamps) if after > before]
    if len(periods) >= 4:
        usual = median(periods)
        lost = sum(round(period / usual) - 1 for period in periods if period > 1.5 * usual)
        if lost > (1 - MOST) * len(stream.stamps):
            advice = "the Fast DDS profile for its publisher too (docs/topics.md), or a less busy machine"
            yield hint(f"{stream.topic}: about {lost} messages are missing by the stamps", "every one", advice)


def absent(evidence: Evidence, name: str) -> Finding:
    """Why nothing came of an input that is needed, and which topics there are instead."""
    stream = evidence.streams[name]
    expected = " or ".join(types_of(name))
    if stream.failures:
        return wrong(f"{stream.topic}: no message can be read: {stream.failures[0]}", expected)
    if stream.publishers:
        advice = "the Fast DDS profile for its publisher too (docs/topics.md), and the driver's log"
        return wrong(f"{stream.topic} has {stream.publishers} publishers, but nothing came", expected, advice)
    there = [topic for topic in evidence.topics_for(name) if topic != stream.topic]
    compressed = f"{stream.topic}/compressed"
    if compressed in there:
        advice = "input.image_transport:=compressed (here --image-transport compressed)"
    elif there:
        advice = f"{name}:={there[0]} for the node (here {option_of(name)} {there[0]}); there are {', '.join(there)}"
    elif name == INFO_INPUT:
        advice = "start the driver with a calibration, or set input.fov"
    else:
        advice = "start the camera driver, with this ROS_DOMAIN_ID" if evidence.is_live else "another recording"
    text = f"nothing publishes {stream.topic}" if evidence.is_live else f"no messages on {stream.topic}"
    kind = evidence.topics.get(stream.topic)
    if kind is not None and kind not in types_of(name):
        text += f" of this type, it is {kind},"
    return wrong(f"{text} in {evidence.place}", expected, advice)


CAMERA: Checks[Evidence] = {
    IMAGE_INPUT: check_image,
    INFO_INPUT: check_camera_info,
    "rectification": check_rectification,
    "stamps": check_stamps,
    "tf": check_tf,
}
