"""rosbag2 files out: MCAP, compressed with zstd, message definitions inside; Foxglove and ``ros2 bag`` open them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from lotus2_ros.bags.frames import COMPRESSED_IMAGE, RecordedFrame, Say, say_on_stderr, stamp_ns, typestore
from lotus2_ros.bags.mcap import rosbag2_metadata
from lotus2_ros.bags.reader import METADATA, open_reader
from lotus2_ros.config.names import DEPTH_INPUT, IMAGE_INPUT, INFO_INPUT, POINTS_INPUT
from lotus2_ros.config.output import OutputError, claimed, in_use, is_claimed, marked_by, sync

IMAGE_TOPIC, COMPRESSED_TOPIC = f"/{IMAGE_INPUT}", f"/{IMAGE_INPUT}/compressed"
INFO_TOPIC, REFERENCE_TOPIC, POINTS_TOPIC = f"/{INFO_INPUT}", f"/{DEPTH_INPUT}", f"/{POINTS_INPUT}"
INPUT_TOPICS = (INFO_TOPIC, REFERENCE_TOPIC, IMAGE_TOPIC, COMPRESSED_TOPIC)
WRITER_KEY = "lotus2_ros"  # in the custom data of a bag's metadata: the command that wrote it
UNKNOWN_DIGEST = "RIHS01_" + 64 * "0"
MAX_GAP_NS = 5 * 10**9

if TYPE_CHECKING:
    from typing_extensions import Self


class BagWriter:
    """A new rosbag2.

    A path that ends in ``.mcap`` gives that one file (its metadata is inside), any other a folder with metadata.yaml.
    It grows in the folder ``<name>.partial`` beside its place, and moves there when it is complete: until then an old
    bag at that path stays as it is. Nothing else but such a bag may be there; ``config.output`` checks it.

    A block that an exception leaves removes what was written; with ``keep_partial`` it is completed and stays in
    ``partial``, and after ``flush`` even a killed process leaves a file there that ``read_messages`` reads. While it is
    written no other run writes there.

    ``command`` is the subcommand of lotus2 that writes it, which is kept in its metadata. Raises OutputError if the
    folder ``partial`` is not ours, or is that of a run in progress.
    """

    def __init__(self, path: Path | str, *, command: str = "", keep_partial: bool = False) -> None:
        self.path = Path(path).resolve()
        self.partial = partial_folder(self.path)
        self.keep_partial = keep_partial
        self._command = command
        # rosbags names the file after its folder.
        self._folder = self.partial / self.path.stem
        self._connections: dict[str, Any] = {}
        self.count = 0  # messages written

    def __enter__(self) -> Self:
        if self.partial.exists():
            if marked_by(self.partial) is None:
                raise OutputError(
                    f"{self.partial}: expected an unfinished bag of lotus2 or nothing, got another folder; move it"
                )
            if is_claimed(self.partial):
                raise in_use(self.partial)
            shutil.rmtree(self.partial)
        self._claim = ExitStack()
        try:
            self._claim.enter_context(claimed(self.partial, self._command))
            self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.set_custom_data(WRITER_KEY, self._command)
            self._writer.open()
        except OSError:  # a full disk
            self._claim.close()
            shutil.rmtree(self.partial, ignore_errors=True)
            raise
        return self

    def write(self, topic: str, item: Any, time_ns: int | None = None) -> None:
        """Append a message; at its header's stamp unless a time is given."""
        raw = typestore().serialize_cdr(item, item.__msgtype__)
        self.write_raw(topic, item.__msgtype__, raw, stamp_ns(item) if time_ns is None else time_ns)

    def write_raw(
        self, topic: str, msgtype: str, raw: bytes | memoryview, time_ns: int, definition: str = "", digest: str = ""
    ) -> None:
        """Append a message that is already serialized (CDR); ``definition`` and ``digest`` are of an unknown type.

        Raises OutputError if a type is unknown and has no definition.
        """
        if topic not in self._connections:
            known = {"typestore": typestore()} if msgtype in typestore().types else None
            if known is None and not definition:
                raise OutputError(f"{topic}: {msgtype} is unknown here, and its bag has no definition of it")
            described = known or {"msgdef": definition, "rihs01": digest or UNKNOWN_DIGEST}
            self._connections[topic] = self._writer.add_connection(topic, msgtype, **described)
        self._writer.write(self._connections[topic], time_ns, raw)
        self.count += 1

    def flush(self) -> None:
        """Hand everything written so far to the operating system, in chunks that can be read without an index."""
        storage: Any = self._writer.storage
        if storage.chunk.bio.tell():
            storage.close_chunk()
        storage.bio.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._claim:
            if kind is None:
                self._writer.close()
                self._move_into_place()
            elif self.keep_partial and self.count:
                try:
                    self._writer.close()
                except OSError:  # a full disk: the chunks are there, without an index
                    with suppress(OSError):
                        self._writer.abort()
            else:
                self._writer.abort()
                shutil.rmtree(self.partial)

    def _move_into_place(self) -> None:
        file = self._folder / f"{self._folder.name}.mcap"
        source = file if self.path.suffix == ".mcap" else self._folder
        for written in (*self._folder.iterdir(), self._folder):
            sync(written)
        if self.path.is_dir() or source.is_dir():
            # A folder takes the place of an empty one only.
            old = self.partial / "replaced"
            if self.path.exists():
                self.path.replace(old)
        source.replace(self.path)
        sync(self.path.parent)
        shutil.rmtree(self.partial)


def partial_folder(path: Path) -> Path:
    """The folder in which a bag grows, beside its final place, so that moving it there is a rename."""
    return path.parent / f"{path.name}.partial"


def written_by(path: Path) -> str | None:
    """The command of ours that wrote a bag; None if it is no such bag."""
    try:
        metadata = _metadata(path) if path.is_dir() else rosbag2_metadata(path)
        return (metadata.get("custom_data") or {}).get(WRITER_KEY)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None


def added_to(bag: Path) -> list[str]:
    """Names in the folder of a bag of ours that are not of the bag: notes, say, which would go with it."""
    names = {item.name for item in bag.iterdir()} if bag.is_dir() else set()
    return sorted(names - {METADATA, *_metadata(bag)["relative_file_paths"]}) if names else []


def _metadata(folder: Path) -> Any:
    return yaml.safe_load((folder / METADATA).read_text())["rosbag2_bagfile_information"]


def write_frames(path: Path, frames: Iterable[RecordedFrame]) -> int:
    """Write frames as the node's inputs: image or image/compressed, camera_info, reference/depth. Returns their number.

    The result can be played: gaps longer than MAX_GAP_NS are cut, and the time of recording never goes back. Stamps are
    unchanged.
    """
    count, time_ns, recorded_ns = 0, 0, 0
    with BagWriter(path) as bag:
        for frame in frames:
            gap_ns = frame.time_ns - recorded_ns
            time_ns = time_ns + min(max(gap_ns, 0), MAX_GAP_NS) if count else max(frame.time_ns, 0)
            recorded_ns = frame.time_ns
            write_frame(bag, frame, time_ns)
            count += 1
    return count


def write_frame(bag: BagWriter, frame: RecordedFrame, time_ns: int | None = None) -> None:
    """Write a frame at the time of its recording, or another. Calibration and reference come first, because the node
    processes the image when it arrives."""
    time_ns = frame.time_ns if time_ns is None else time_ns
    compressed = frame.image.__msgtype__ == COMPRESSED_IMAGE
    bag.write(INFO_TOPIC, frame.camera_info, time_ns)
    if frame.reference is not None:
        bag.write(REFERENCE_TOPIC, frame.reference, time_ns)
    for points in frame.points:
        bag.write(POINTS_TOPIC, points, time_ns)
    bag.write(COMPRESSED_TOPIC if compressed else IMAGE_TOPIC, frame.image, time_ns)


def duration(path: Path) -> float:
    """Seconds between the first and the last message."""
    with open_reader(path) as reader:
        return reader.duration_s


def read_messages(
    path: Path, topics: Iterable[str] | None = None, say: Say = say_on_stderr
) -> Iterator[tuple[str, str, int, bytes]]:
    """(topic, type, time in ns, CDR) of a rosbag2 in order, all topics or the given ones."""
    with open_reader(path, say) as reader:
        for item in reader.messages(None if topics is None else list(topics)):
            yield item.topic, item.kind, item.time_ns, reader.cdr(item)
