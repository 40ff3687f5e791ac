"""Reference depth of bags: of every encoding, of the image's frame only."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from lotus2_ros.bags import InputError, open_recording
from lotus2_ros.bags.frames import COMPRESSED_IMAGE, header, image_message, message

MILLIMETERS = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) + 1000


def png(values):
    return cv2.imencode(".png", values)[1].tobytes()


def compressed(kind, data):
    return message(COMPRESSED_IMAGE, header=header(10**9, "eye"), format=kind, data=np.frombuffer(data, np.uint8))


def record(recorder, path, topic, reference):
    _, _, image = recorder.messages(1)
    return recorder.write(path, StoragePlugin.MCAP, [(topic, reference), image])


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("16UC1; compressedDepth png", struct.pack("<iff", 0, 0.0, 0.0)),
        ("16UC1; compressedDepth", struct.pack("<iff", 0, 0.0, 0.0)),
        ("16UC1; png compressed", b""),
        ("png", b""),
    ],
)
def test_millimeters_as_png(recorder, tmp_path, kind, head):
    bag = record(recorder, tmp_path / "bag", "/depth", compressed(kind, head + png(MILLIMETERS)))
    (frame,) = open_recording([bag], reference_topic="/depth").frames()
    assert frame.reference.encoding == "16UC1"
    np.testing.assert_array_equal(frame.reference.data.view(np.uint16).reshape(24, 32), MILLIMETERS)


@pytest.mark.parametrize("name", ["depth", "depth/compressedDepth", "depth/compressed"])
def test_a_reference_is_found_under_the_nodes_own_names(recorder, tmp_path, name):
    kind, head = (
        ("16UC1; png compressed", b"") if name == "depth/compressed" else ("16UC1; compressedDepth png", bytes(12))
    )
    bag = record(recorder, tmp_path / "bag", f"/cam/reference/{name}", compressed(kind, head + png(MILLIMETERS)))
    recording = open_recording([bag])
    assert recording.reference == f"/cam/reference/{name}"


def test_gray_of_16_bits_is_no_depth_if_its_format_says_so(recorder, tmp_path):
    bag = record(recorder, tmp_path / "bag", "/depth", compressed("mono16; png compressed ", png(MILLIMETERS)))
    with pytest.raises(InputError, match=r"2 image topics, choose one with --topic: .*/depth"):
        open_recording([bag])


def test_a_reference_that_is_no_depth_is_no_second_camera(recorder, tmp_path):
    gray = image_message(MILLIMETERS, "mono16", header(10**9, "eye"))
    bag = record(recorder, tmp_path / "bag", "/depth", gray)
    with pytest.raises(InputError, match=r"no depth images on /depth, which has 'mono16'; depth topics: none"):
        open_recording([bag], reference_topic="/depth")
    with pytest.raises(InputError, match=r"depth \('32FC1'\) on reference/depth; image topics: /cam/image_raw"):
        open_recording(
            [recorder.write(tmp_path / "b", StoragePlugin.MCAP, recorder.messages(1))], topic="reference/depth"
        )


def test_inverse_depth_of_float_images(recorder, tmp_path):
    values = np.full((24, 32), 600, np.uint16)
    values[0, 0] = 0
    data = struct.pack("<iff", 0, 1000.0, 100.0) + png(values)
    bag = record(recorder, tmp_path / "bag", "/depth", compressed("32FC1; compressedDepth png", data))
    (frame,) = open_recording([bag], reference_topic="/depth").frames()
    depth = frame.reference.data.view(np.float32).reshape(24, 32)
    assert np.isnan(depth[0, 0]) and depth[1, 1] == pytest.approx(1000 / (600 - 100))


def test_a_damaged_reference_is_skipped_with_a_line(recorder, tmp_path):
    said: list[str] = []
    damaged = compressed("16UC1; compressedDepth png", b"\0" * 20)
    bag = record(recorder, tmp_path / "bag", "/depth", damaged)
    (frame,) = open_recording([bag], reference_topic="/depth", say=said.append).frames()
    assert frame.reference is None and len(said) == 1 and said[0].startswith("skipped: message on /depth")


def test_depth_of_another_frame_is_not_used(recorder, tmp_path):
    said: list[str] = []
    depth = image_message(MILLIMETERS, "16UC1", header(10**9, "depth_optical"))
    bag = record(recorder, tmp_path / "bag", "/reference/depth", depth)
    recording = open_recording([bag], say=said.append)
    (frame,) = recording.frames()
    assert frame.reference is None and recording.reference == "/reference/depth"
    assert said == ["/reference/depth: not used, expected depth in the image's frame 'eye', got 'depth_optical'"]


def test_a_reference_without_a_stamp_is_of_the_time_of_its_recording(recorder, tmp_path):
    depth = image_message(MILLIMETERS, "16UC1", header(0, "eye"))
    bag = record(recorder, tmp_path / "bag", "/reference/depth", depth)
    (frame,) = open_recording([bag]).frames()
    assert frame.reference is not None and frame.reference.header.stamp.nanosec == 1
