"""Bags of ROS 2 and ROS 1."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore

from lotus2_ros.bags import InputError, open_recording
from lotus2_ros.bags.frames import COMPRESSED_IMAGE, camera_info_message, header, image_message, stamp_ns


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_rosbag2_folder_and_its_file_alone(recorder, tmp_path, plugin, compression):
    folder = recorder.write(tmp_path / "bag", plugin, recorder.messages(), compression)
    recorder.check(folder)
    (folder / "metadata.yaml").unlink()
    recorder.check(folder)
    recorder.check(next(folder.iterdir()))


def test_ros1_bag_with_compressed_images(recorder, tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types

    def head(stamp: int) -> object:
        time = types["builtin_interfaces/msg/Time"](sec=stamp, nanosec=7)
        return types["std_msgs/msg/Header"](seq=3, stamp=time, frame_id="eye")

    png = cv2.imencode(".png", recorder.picture()[..., ::-1])[1]
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    info = types["sensor_msgs/msg/CameraInfo"](
        head(5), recorder.height, recorder.width, "plumb_bob", np.array([0.1, 0, 0, 0, 0]),
        recorder.camera.K.numpy().ravel(), np.eye(3).ravel(), np.eye(3, 4).ravel(), 0, 0, roi,
    )  # fmt: skip
    image = types["sensor_msgs/msg/CompressedImage"](head(4), "png", png)
    path = tmp_path / "old.bag"
    with Ros1Writer(path) as writer:
        # Without a leading slash, as some recorders wrote them.
        for topic, item in (("cam/camera_info", info), ("cam/image/compressed", image)):
            connection = writer.add_connection(topic, item.__msgtype__, typestore=store)
            writer.write(connection, 10**9, store.serialize_ros1(item, item.__msgtype__))
    (frame,) = open_recording([path]).frames()
    assert frame.image.__msgtype__ == COMPRESSED_IMAGE
    assert frame.stamp_ns == stamp_ns(frame.camera_info) == 4 * 10**9 + 7
    assert frame.image.header.frame_id == "eye"
    np.testing.assert_allclose(frame.camera_info.d, [0.1, 0, 0, 0, 0])
    np.testing.assert_array_equal(cv2.imdecode(frame.image.data, cv2.IMREAD_COLOR)[..., ::-1], recorder.picture())


def test_calibration_for_another_size_is_not_used(recorder, tmp_path):
    wide = image_message(recorder.picture(width=recorder.width * 2), "rgb8", header(10**9, "eye"))
    messages = [recorder.messages()[0], ("/cam/image_raw", wide)]
    recording = open_recording([recorder.write(tmp_path / "bag", StoragePlugin.MCAP, messages)])
    (frame,) = recording.frames()
    assert "32 x 24" in recording.camera and "64 x 24" in recording.camera
    assert frame.camera_info.width == recorder.width * 2


@pytest.mark.parametrize(("model", "distortion"), [("plumb_bob", [0.1] * 5), ("equidistant", [0.1] * 4)])
@pytest.mark.parametrize(("name", "is_rectified"), [("image_rect", True), ("image_raw", False)])
def test_calibration_of_a_rectified_topic_is_that_of_its_images(
    recorder, tmp_path, name, is_rectified, model, distortion
):
    projection = [25.0, 0.0, 15.0, -3.0, 0.0, 26.0, 12.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = camera_info_message(recorder.camera, header(10**9, "eye"), distortion, projection)
    messages = [
        ("/cam/camera_info", replace(info, distortion_model=model)),
        (f"/cam/{name}", image_message(recorder.picture(), "rgb8", header(10**9, "eye"))),
    ]
    (frame,) = open_recording([recorder.write(tmp_path / "bag", StoragePlugin.MCAP, messages)]).frames()
    expected = [25, 0, 15, 0, 26, 12, 0, 0, 1] if is_rectified else [30, 0, 14, 0, 31, 13, 0, 0, 1]
    np.testing.assert_allclose(frame.camera_info.k, expected)
    # With a D of zeros an equidistant model is still a fisheye.
    assert frame.camera_info.distortion_model == ("plumb_bob" if is_rectified else model)
    assert frame.camera_info.d.tolist() == ([0.0] * 5 if is_rectified else distortion)


def test_several_image_topics_ask_for_one(recorder, tmp_path):
    messages = [
        *recorder.messages(1),
        ("/other/image", image_message(recorder.picture(7), "rgb8", header(10**9, "eye"))),
    ]
    path = recorder.write(tmp_path / "bag", StoragePlugin.MCAP, messages)
    with pytest.raises(InputError, match=r"2 image topics, choose one with --topic: /cam/image_raw, /other/image"):
        open_recording([path])
    with pytest.raises(InputError, match="no images on /none; image topics: /cam/image_raw"):
        open_recording([path], topic="/none")
    with pytest.raises(InputError, match="no depth images on /cam/image_raw, which has 'rgb8'; depth topics: /refer"):
        open_recording([path], topic="/cam/image_raw", reference_topic="/cam/image_raw")
    (frame,) = open_recording([path], topic="other/image").frames()
    assert frame.image.data.reshape(recorder.height, recorder.width, 3)[0, 0, 2] == 70


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5])
@pytest.mark.parametrize("name", ["cut.mcap", "cut.db3", "cut.bag"])
def test_broken_bags_are_one_clear_line(recorder, tmp_path, name, share):
    plugin = StoragePlugin.SQLITE3 if name.endswith("db3") else StoragePlugin.MCAP
    bag = recorder.write(tmp_path / "bag", plugin, recorder.messages())
    whole = next(file for file in bag.iterdir() if file.suffix in (".db3", ".mcap")).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=name) as caught:
        list(open_recording([path]).frames())
    assert "\n" not in str(caught.value)
