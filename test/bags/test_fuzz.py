"""Mutated bags, images and calibrations: only documented errors, no hang."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from lotus2_ros.bags import InputError, open_recording, write_frames
from lotus2_ros.bags.frames import COMPRESSED_IMAGE, header, message

ROUNDS = int(os.environ.get("LOTUS2_FUZZ_ROUNDS", "40"))  # of each kind of file
SLOWEST = 5.0  # seconds for an input of a few kilobytes, on a busy machine


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes: a byte, a run of bytes, a cut, a repetition, a number of another size."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        at = int(rng.integers(0, max(1, len(changed))))
        match rng.integers(0, 5):
            case 0:
                changed[at : at + 1] = bytes([rng.integers(0, 256)])
            case 1:
                changed[at : at + 8] = rng.bytes(int(rng.integers(0, 16)))
            case 2:
                del changed[at : at + int(rng.integers(1, 64))]
            case 3:
                changed[at:at] = changed[at : at + int(rng.integers(1, 64))]
            case 4:
                changed[at : at + 4] = b"\xff\xff\xff\x7f" if rng.integers(0, 2) else b"\0\0\0\0"
    return bytes(changed if rng.integers(0, 8) else changed[: int(rng.integers(0, len(changed) + 1))])


@pytest.fixture(scope="module")
def originals(recorder, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    jpeg = cv2.imencode(".jpg", recorder.picture())[1]
    compressed = message(COMPRESSED_IMAGE, header=header(10**9, "eye"), format="jpeg", data=jpeg)
    messages = [*recorder.messages(2), ("/other/image_raw/compressed", compressed)][:3]
    found = {}
    for suffix, plugin in ((".mcap", StoragePlugin.MCAP), (".db3", StoragePlugin.SQLITE3)):
        bag = recorder.write(folder / suffix[1:], plugin, messages)
        found[suffix] = next(bag.glob(f"*{suffix}")).read_bytes()
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".tiff", ".gif"):
        found[suffix] = cv2.imencode(suffix, recorder.picture())[1].tobytes()
    return found


def read_and_write(path: Path) -> None:
    """What every command does with an input."""
    recording = open_recording([path], limit=20, say=lambda line: None)
    write_frames(path.parent / "out.mcap", recording.frames())


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".png", ".jpg", ".bmp", ".webp", ".tiff", ".gif"])
def test_mutated_files_raise_input_errors_only(originals, tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = tmp_path / f"input{suffix}"
    for number in range(ROUNDS):
        path.write_bytes(mutated(originals[suffix], rng))
        start = time.monotonic()
        try:
            read_and_write(path)
        except InputError as error:
            assert "\n" not in str(error), (number, error)
        assert time.monotonic() - start < SLOWEST, number


def test_mutated_intrinsics_raise_input_errors_only(recorder, tmp_path):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.png"), recorder.picture())
    original = json.dumps({"fx": 30, "fy": 31, "cx": 14, "cy": 13, "width": 32, "height": 24, "P": [1.0] * 12})
    for number in range(ROUNDS):
        (tmp_path / "intrinsics.json").write_bytes(mutated(original.encode(), rng))
        try:
            read_and_write(tmp_path / "a.png")
        except InputError as error:
            assert "\n" not in str(error), (number, error)
