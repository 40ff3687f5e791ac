"""Recorded input as one stream of frames, and rosbag2 files as output, without a running ROS.

Image files, folders, video, rosbag2 (mcap, sqlite3) and ROS 1 bags all become :class:`RecordedFrame`: ROS 2 messages
with one image, its camera_info and, if there is one, a reference depth.
"""

from lotus2_ros.bags.frames import RecordedFrame, Recording
from lotus2_ros.bags.inputs import open_recording
from lotus2_ros.bags.resumable import ResumableBag
from lotus2_ros.bags.writer import BagWriter, read_messages, write_frames
from lotus2_ros.config.errors import InputError

__all__ = [
    "BagWriter",
    "InputError",
    "RecordedFrame",
    "Recording",
    "ResumableBag",
    "open_recording",
    "read_messages",
    "write_frames",
]
