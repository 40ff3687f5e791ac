"""Every kind of input becomes the same stream of frames; what cannot be read says so in one line."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from lotus2_ros.bags import InputError, open_recording
from lotus2_ros.bags.frames import COMPRESSED_IMAGE, header, message


def test_bad_inputs_are_one_clear_line(recorder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*nowhere"):
        open_recording([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="expected images, a bag or an RGB-D frame in this folder, found none"):
        open_recording([tmp_path])
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(InputError, match=r"text.txt: expected images, a folder, a video or a bag"):
        open_recording([tmp_path / "text.txt"])
    with pytest.raises(InputError, match="expected a bag, because a topic was given"):
        open_recording([tmp_path / "text.txt"], topic="/image")
    path = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, [recorder.messages()[0]])
    with pytest.raises(InputError, match="no image topic"):
        open_recording([path])
    recorder.write(tmp_path / "bag2", StoragePlugin.MCAP, recorder.messages()[1:2])
    with pytest.raises(InputError, match="no image topic"):
        open_recording([tmp_path / "bag2"])
    garbled = message(COMPRESSED_IMAGE, header=header(1, "eye"), format="jpeg", data=np.zeros(9, np.uint8))
    path = recorder.write(tmp_path / "bag3", StoragePlugin.MCAP, [("/image/compressed", garbled)])
    with pytest.raises(InputError, match="jpeg image cannot be decoded"):
        open_recording([path])


def test_all_recorded_camera_data(shared):
    """The real recordings: each gives an image with a calibration of its size, the RGB-D frames also a depth."""
    data = shared / "data"
    assert (data / "indoor_tum_rgbd_open3d").is_dir()
    inputs = [*data.glob("bag_ros1*/*.bag"), *(d for d in data.iterdir() if d.is_dir() and "ros1" not in d.name)]
    for path in inputs:
        frames = list(open_recording([path]).frames())
        assert frames, path
        assert frames[0].camera_info.k[0] > 100
        has_depth = path.name.startswith(("indoor", "outdoor", "stereo_middlebury"))
        assert (frames[0].reference is not None) == has_depth, path
        if has_depth:
            depth = frames[0].reference.data.view(np.float32)
            assert 0.1 < np.nanmedian(depth) < 50, path


@pytest.mark.parametrize("limit", [0, -1])
def test_a_number_of_frames_is_positive(recorder, tmp_path, limit):
    path = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, recorder.messages())
    with pytest.raises(InputError, match=f"expected a positive number of frames, got {limit}"):
        open_recording([path], limit=limit)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("data", [b"", b"junk" * 9])
def test_an_undecodable_image_of_a_bag_is_skipped_wherever_it_is(recorder, tmp_path, place, data):
    jpeg = cv2.imencode(".jpg", recorder.picture())[1].tobytes()
    messages = []
    for index in range(3):
        pixels = np.frombuffer(data if index == place else jpeg, np.uint8)
        item = message(COMPRESSED_IMAGE, header=header((index + 1) * 10**9, "eye"), format="jpeg", data=pixels)
        messages.append(("/image/compressed", item))
    said: list[str] = []
    path = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, messages)
    frames = list(open_recording([path], say=said.append).frames())
    assert [frame.stamp_ns // 10**9 for frame in frames] == [n + 1 for n in range(3) if n != place]
    assert len(said) == 1 and said[0].startswith("skipped: message on /image/compressed")
