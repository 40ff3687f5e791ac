"""Bags of ROS 2 (mcap, sqlite3) and ROS 1 as messages of ROS 2. Any damage is reported in one line."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.reader import Reader as Rosbag2Reader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from rosbags.typesys import Stores, get_typestore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from lotus2_ros.bags.frames import Say, message, say_on_stderr, typestore
from lotus2_ros.bags.mcap import SalvagingReader
from lotus2_ros.config.errors import InputError, first_line

METADATA = "metadata.yaml"  # in the folder of a rosbag2
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ADVICE = {
    ".mcap": "`mcap recover` may save more",
    ".db3": "`ros2 bag reindex` rebuilds the metadata, `sqlite3 {name} .recover` the data",
    ".bag": "`rosbag reindex` rebuilds its index",
    "": "`ros2 bag reindex` rebuilds the metadata",
}
# Types that have another name in ROS 2, with the same fields.
TYPES_OF_ROS2 = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}


@dataclass(frozen=True)
class BagMessage:
    """A message of a bag as it is stored, under its absolute topic name."""

    topic: str
    kind: str  # package/msg/Name
    time_ns: int
    raw: bytes | memoryview
    definition: str = ""  # of its type, as .msg text
    digest: str = ""  # of its type, RIHS01


@contextmanager
def open_reader(path: Path, say: Say = say_on_stderr) -> Iterator[BagReader]:
    """A bag file, or a folder with metadata.yaml. Raises InputError."""
    with _one_line(path):
        reader = AnyReader([path], default_typestore=typestore())
        if reader.is2:
            reader.readers = [_Rosbag2(path)]
        reader.open()
        bag = BagReader(path, reader, say)
    try:
        yield bag
    finally:
        reader.close()


class BagReader:
    """An open bag. Raises InputError if nothing can be read; damage after readable messages is reported to ``say``."""

    def __init__(self, path: Path, reader: AnyReader, say: Say) -> None:
        self.path = path
        self._reader = reader
        self._say = say
        connections = [c for c in reader.connections if c.msgcount]
        self.topics = {absolute(c.topic): kind_of(c.msgtype) for c in connections}
        self.counts: Counter[str] = Counter()  # messages by topic
        for connection in connections:
            self.counts[absolute(connection.topic)] += connection.msgcount
        for storage in _storages(reader):
            if damage := getattr(storage, "damage", ""):
                say(f"{path}: {damage}; {advice(path)}")

    @property
    def duration_s(self) -> float:
        return self._reader.duration * 1e-9

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """The messages of these topics (absolute names; None: all) in the order of their recording."""
        wanted = [c for c in self._reader.connections if topics is None or absolute(c.topic) in topics]
        if not wanted:
            return
        count, items = 0, self._reader.messages(wanted)
        while True:
            try:
                item = next(items, None)
            except Exception as error:  # damaged bytes raise errors of any class
                if not count:
                    raise InputError(_line(self.path, error)) from None
                self._say(f"{self.path}: damaged after {count} messages ({_text(error)}); {advice(self.path)}")
                return
            if item is None:
                return
            count += 1
            connection, time_ns, raw = item
            yield BagMessage(
                absolute(connection.topic),
                kind_of(connection.msgtype),
                time_ns,
                raw,
                connection.msgdef.data,
                connection.digest,
            )

    def decode(self, item: BagMessage) -> Any:
        """As a ROS 2 message: ROS 1 has a sequence number in the header and capital letters. Raises InputError."""
        try:
            if self._reader.is2:
                return typestore().deserialize_cdr(_decompressed(item.raw), item.kind)
            return _from_ros1(item)
        except Exception as error:  # damaged bytes raise errors of any class
            raise InputError(f"{self.path}: a message on {item.topic} cannot be read ({_text(error)})") from None

    def cdr(self, item: BagMessage) -> bytes:
        """As CDR bytes, whatever the bag holds."""
        if self._reader.is2:
            return bytes(_decompressed(item.raw))
        return bytes(typestore().serialize_cdr(self.decode(item), TYPES_OF_ROS2.get(item.kind, item.kind)))


class _Rosbag2Folder(DirectoryReader):
    """The storage plugin of a folder; some distributions' `ros2 bag reindex` leaves its name empty, so the files
    tell."""

    STORAGE_PLUGINS: Mapping[str, Any] = {
        "mcap": SalvagingReader,
        "sqlite3": Sqlite3Reader,
        "": lambda path: SalvagingReader(path) if path.suffix == ".mcap" else Sqlite3Reader(path),
    }


class _Rosbag2(Rosbag2Reader):
    STORAGE_PLUGINS: Mapping[str, Any] = {"dir": _Rosbag2Folder, ".mcap": SalvagingReader, ".db3": Sqlite3Reader}


def _storages(reader: AnyReader) -> list[Any]:
    found: list[Any] = []
    for storage in (getattr(r, "storage", None) for r in reader.readers):
        found += getattr(storage, "storages", [storage])
    return found


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """rosbags raises errors of any class on damaged files, MemoryError and StopIteration among them."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of any class, see above
        raise InputError(_line(path, error)) from None


def _line(path: Path, error: Exception) -> str:
    todo = "decompress what is whole with `zstd -dc`" if isinstance(error, EOFError | zstd.ZstdError) else advice(path)
    return f"{path}: not a bag that can be read ({_text(error)}); {todo}"


def _text(error: Exception) -> str:
    # rosbags asks to report what it does not know; here the file is to blame.
    return first_line(error).replace("; please report issue.", "")


def advice(path: Path) -> str:
    """The command that may repair a damaged bag."""
    return ADVICE.get(path.suffix, ADVICE[""]).format(name=path.name)


def absolute(topic: str) -> str:
    return "/" + topic.lstrip("/")


def kind_of(msgtype: str) -> str:
    """``sensor_msgs/Image`` (ROS 1, and some recorders) and ``sensor_msgs/msg/Image`` are the same type."""
    package, *_, name = msgtype.split("/")
    return f"{package}/msg/{name}"


def _decompressed(raw: bytes | memoryview) -> bytes | memoryview:
    """The message without compression. A single file of a bag that was compressed per message lacks the metadata.yaml
    that names the compression."""
    return zstd.decompress(raw) if bytes(raw[:4]) == ZSTD_MAGIC else raw


def _from_ros1(item: BagMessage) -> Any:
    old = get_typestore(Stores.ROS1_NOETIC).deserialize_ros1(item.raw, item.kind)
    return _as_ros2(old, TYPES_OF_ROS2.get(item.kind, item.kind))


def _as_ros2(old: Any, kind: str) -> Any:
    """A message of ROS 1 with the fields of ROS 2: without sequence numbers, and with the K of CameraInfo as k."""
    fields = {}
    for name in typestore().types[kind].__dataclass_fields__:
        if name != "__msgtype__":
            value = getattr(old, name) if hasattr(old, name) else getattr(old, name.upper())
            fields[name] = [_nested(part) for part in value] if isinstance(value, list) else _nested(value)
    return message(kind, **fields)


def _nested(value: Any) -> Any:
    return _as_ros2(value, value.__msgtype__) if hasattr(value, "__msgtype__") else value
