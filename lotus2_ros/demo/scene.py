"""The camera bag that comes with the package: a moving camera in a procedural room, with exact depth."""

from __future__ import annotations

from pathlib import Path

import torch

from lotus2_ros.bags import BagWriter, RecordedFrame
from lotus2_ros.bags.frames import FRAME_ID, START_NS, camera_info_message, header, image_message
from lotus2_ros.bags.writer import write_frame
from lotus2_ros.scenes import View, sequence

SCENE_FRAMES = 60
# Playback speed: two CPU cores that also play and record keep up with a camera of 5 Hz, not of 10 Hz.
SCENE_RATE = 0.5
# A reference as from a low-cost depth sensor: every fifth frame, one pixel in 8 x 8.
REFERENCE_PERIOD = 5
REFERENCE_STRIDE = 8
TRUTH_TOPIC = "/truth/depth"


def write_scene_bag(path: Path, frames: int, width: int = 640, height: int = 480) -> int:
    """image, camera_info and reference/depth of the moving camera, and truth/depth, which is not played."""
    with BagWriter(path) as bag:
        for index, view in enumerate(sequence(frames=frames, width=width, height=height)):
            frame = scene_frame(view, with_reference=index % REFERENCE_PERIOD == 0)
            write_frame(bag, frame)
            bag.write(TRUTH_TOPIC, image_message(view.depth.numpy(), "32FC1", frame.image.header), frame.stamp_ns)
    return frames


def scene_frame(view: View, with_reference: bool) -> RecordedFrame:
    stamp = START_NS + round(view.stamp_s * 1e9)
    head = header(stamp, FRAME_ID)
    reference = None
    if with_reference:
        sparse = torch.full_like(view.depth, torch.nan)
        middle = slice(REFERENCE_STRIDE // 2, None, REFERENCE_STRIDE)
        sparse[middle, middle] = view.depth[middle, middle]
        reference = image_message(sparse.numpy(), "32FC1", head)
    return RecordedFrame(
        stamp, image_message(view.image.numpy(), "rgb8", head), camera_info_message(view.camera, head), reference
    )
