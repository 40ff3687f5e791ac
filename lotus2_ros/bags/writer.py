"""rosbag2 files out: MCAP, compressed with zstd, message definitions inside; Foxglove and ``ros2 bag`` open them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from lotus2_ros.bags.frames import COMPRESSED_IMAGE, RecordedFrame, stamp_ns, typestore
from lotus2_ros.bags.recorded import open_reader

IMAGE_TOPIC, COMPRESSED_TOPIC = "/image", "/image/compressed"
INFO_TOPIC, REFERENCE_TOPIC = "/camera_info", "/reference/depth"
INPUT_TOPICS = (INFO_TOPIC, REFERENCE_TOPIC, IMAGE_TOPIC, COMPRESSED_TOPIC)

if TYPE_CHECKING:
    from typing_extensions import Self


class BagWriter:
    """A new rosbag2.

    A path that ends in ``.mcap`` gives that one file (its metadata is inside), any other a folder with metadata.yaml.
    An old bag at that path is replaced when this one is complete; a block left by an exception leaves nothing behind.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        # The writer names the file after its folder.
        self._folder = self.path.parent / f".{self.path.stem}.partial" / self.path.stem
        self._connections: dict[str, Any] = {}
        self.count = 0  # messages written

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder.parent, ignore_errors=True)
        self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        return self

    def write(self, topic: str, item: Any, time_ns: int | None = None) -> None:
        """Append a message; at its header's stamp unless a time is given."""
        raw = typestore().serialize_cdr(item, item.__msgtype__)
        self.write_raw(topic, item.__msgtype__, raw, stamp_ns(item) if time_ns is None else time_ns)

    def write_raw(self, topic: str, msgtype: str, raw: bytes | memoryview, time_ns: int) -> None:
        """Append a message that is already serialized (CDR)."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, msgtype, typestore=typestore())
        self._writer.write(self._connections[topic], time_ns, raw)
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)
        if kind is None:
            if self.path.is_dir():
                shutil.rmtree(self.path)
            single = self.path.suffix == ".mcap"
            source = self._folder / f"{self._folder.name}.mcap" if single else self._folder
            source.replace(self.path)
        shutil.rmtree(self._folder.parent)


def write_frames(path: Path, frames: Iterable[RecordedFrame]) -> int:
    """Frames as the node's inputs: image or image/compressed, camera_info, reference/depth. Returns how many."""
    count = 0
    with BagWriter(path) as bag:
        for frame in frames:
            write_frame(bag, frame)
            count += 1
    return count


def write_frame(bag: BagWriter, frame: RecordedFrame) -> None:
    """Calibration and reference go first: the image is what the node answers to."""
    compressed = frame.image.__msgtype__ == COMPRESSED_IMAGE
    bag.write(INFO_TOPIC, frame.camera_info, frame.stamp_ns)
    if frame.reference is not None:
        bag.write(REFERENCE_TOPIC, frame.reference, frame.stamp_ns)
    bag.write(COMPRESSED_TOPIC if compressed else IMAGE_TOPIC, frame.image, frame.stamp_ns)


def duration(path: Path) -> float:
    """Seconds between the first and the last message."""
    with open_reader(path) as reader:
        return reader.duration * 1e-9


def read_messages(path: Path, topics: Iterable[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
    """(topic, type, time in ns, CDR) of a rosbag2 in order, all topics or the given ones."""
    with open_reader(path) as reader:
        wanted = [c for c in reader.connections if topics is None or c.topic in set(topics)]
        if topics is not None and not wanted:
            return
        for connection, time_ns, raw in reader.messages(wanted):
            yield connection.topic, connection.msgtype, time_ns, bytes(raw)
