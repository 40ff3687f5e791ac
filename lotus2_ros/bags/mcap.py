"""MCAP files that rosbags refuses: without an end (power loss, a killed recorder), or damaged inside."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.storage_mcap import ChunkInfo, McapReader, decompress

MAGIC = b"\x89MCAP0\r\n"
HEADER, CHUNK, METADATA, DATA_END, FOOTER = 0x01, 0x06, 0x0C, 0x0F, 0x02
# Of the fixed fields of a chunk: start and end time, uncompressed size, CRC; then a string and the data, each sized.
CHUNK_FIELDS = struct.Struct("<QQQI")


class SalvagingReader(McapReader):
    """rosbags' reader of an MCAP file, which reads a damaged one up to the damage. ``damage`` describes it."""

    damage = ""

    def _open(self) -> None:
        try:
            super()._open()
        except Exception as error:  # damaged bytes raise errors of any class
            self._salvage(error)

    def _salvage(self, error: Exception) -> None:
        bio = self.bio
        assert bio is not None
        bio.seek(0)
        profile = read_profile(bio)
        if profile is None:
            raise ReaderError(f"no MCAP file, or one without its header: {str(error).rstrip('.')}")
        if profile != "ros2":
            name = f"of profile {profile!r}" if profile else "without a profile"
            raise ReaderError(
                f"expected ROS 2 messages, got an MCAP file {name}; for ROS 1 give the original .bag file"
            )
        for known in (self.schemas, self.channels, self.chunks, self.connections):
            known.clear()
        self.data_start = self.data_end = bio.tell()
        for code, start, size in records(bio):
            if code in (DATA_END, FOOTER):
                break
            if code == CHUNK:
                chunk = _intact_chunk(bio, start, size)
                if chunk is None:
                    break
                self.chunks.append(chunk)
            self.data_end = start + size
        self.meta_scan()
        counts = self.statistics.channel_message_counts if self.statistics else {}
        if not counts or self.statistics is None:
            raise ReaderError(f"truncated or damaged, no message of it can be read: {str(error).rstrip('.')}")
        for chunk in self.chunks:
            chunk.channel_count.update(counts)  # not known chunk by chunk: each is looked through
        self.connections = [c._replace(msgcount=counts.get(c.id, 0)) for c in self.connections]
        start_time, end_time = self.statistics.start_time, self.statistics.end_time
        self.metadata = self.metadata._replace(
            duration=end_time - start_time + 1, start_time=start_time, end_time=end_time + 1,
            message_count=self.statistics.message_count,
        )  # fmt: skip
        reason = str(error).rstrip(".")
        self.damage = f"truncated or damaged ({reason}); only its first {sum(counts.values())} messages are read"


def read_profile(bio: BinaryIO) -> str | None:
    """The profile in the header of an MCAP file, and leave the position behind the header. None: no MCAP file."""
    if bio.read(8) != MAGIC:
        return None
    for code, start, size in records(bio):
        if code != HEADER:
            return None
        body = _body(bio, start, size)
        bio.seek(start + size)
        return _string(body, 0)[0]
    return None


def records(bio: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """(opcode, offset, length with its head of 9 bytes) of each whole record from the position on."""
    position = bio.tell()
    end = bio.seek(0, 2)
    while position + 9 <= end:
        bio.seek(position)
        code, size = struct.unpack("<BQ", bio.read(9))
        if position + 9 + size > end:
            return
        yield code, position, 9 + size
        position += 9 + size


def _body(bio: BinaryIO, start: int, size: int) -> bytes:
    bio.seek(start + 9)
    return bio.read(size - 9)


def _string(data: bytes, offset: int) -> tuple[str, int]:
    """A sized string and the offset behind it."""
    (size,) = struct.unpack_from("<I", data, offset)
    return data[offset + 4 : offset + 4 + size].decode(errors="replace"), offset + 4 + size


def _intact_chunk(bio: BinaryIO, start: int, size: int) -> ChunkInfo | None:
    """The index entry of a chunk, or None if its content is damaged."""
    try:
        body = _body(bio, start, size)
        begin, end, uncompressed, crc = CHUNK_FIELDS.unpack_from(body)
        compression, offset = _string(body, CHUNK_FIELDS.size)
        (compressed,) = struct.unpack_from("<Q", body, offset)
        decompress(body[offset + 8 : offset + 8 + compressed], compression, uncompressed, crc)
    except Exception:  # damaged bytes raise errors of any class, decompressors' too
        return None
    return ChunkInfo(begin, end, start, size, {}, 0, compression, compressed, uncompressed, {})


def rosbag2_metadata(path: Path) -> dict[str, Any]:
    """The ``metadata.yaml`` content in a finished MCAP file of a rosbag2 writer; empty if there is none."""
    with path.open("rb") as bio:
        if read_profile(bio) is None:
            return {}
        for code, start, size in records(bio):
            if code == METADATA:
                body = _body(bio, start, size)
                name, offset = _string(body, 0)
                if name == "rosbag2":
                    key, offset = _string(body, offset + 4)
                    value, _ = _string(body, offset)
                    found = yaml.safe_load(value)
                    return found if key == "serialized_metadata" and isinstance(found, dict) else {}
    return {}
