"""Every kind of input becomes the same stream of frames; what cannot be read says so in one line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from lotus2_ros.bags import BagWriter, InputError, open_recording, read_messages, write_frames
from lotus2_ros.bags.frames import (
    COMPRESSED_IMAGE,
    camera_info_message,
    header,
    image_message,
    message,
    stamp_ns,
    typestore,
)
from lotus2_ros.geometry.camera import Camera

HEIGHT, WIDTH = 24, 32
CAMERA = Camera.from_intrinsics(WIDTH, HEIGHT, fx=30.0, fy=31.0, cx=14.0, cy=13.0)


def picture(index: int = 0, width: int = WIDTH) -> np.ndarray:
    """(H,W,3) whose red channel grows along x, green along y; blue is the index."""
    v, u = np.mgrid[:HEIGHT, :width]
    return np.stack([u * 5, v * 5, np.full_like(u, index * 10)], axis=-1).astype(np.uint8)


def write_ros2(path: Path, plugin: StoragePlugin, messages: list, compress: bool = False) -> Path:
    """A rosbag2 folder of (topic, message) pairs, 0.1 s apart."""
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compress:
        writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    connections: dict = {}
    with writer:
        for index, (topic, item) in enumerate(messages):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, item.__msgtype__, typestore=typestore())
            raw = typestore().serialize_cdr(item, item.__msgtype__)
            writer.write(connections[topic], index * 10**8, raw)
    return path


def camera_messages(frames: int = 2) -> list:
    """Calibration, reference and image of a camera; the calibration's stamps are 3 ms late."""
    messages: list = []
    for index in range(frames):
        stamp = (index + 1) * 10**9
        depth = np.full((HEIGHT, WIDTH), 2.0 + index, np.float32)
        messages += [
            ("/cam/camera_info", camera_info_message(CAMERA, header(stamp + 3_000_000, "eye"))),
            ("/reference/depth", image_message(depth, "32FC1", header(stamp, "eye"))),
            ("/cam/image_raw", image_message(picture(index), "rgb8", header(stamp, "eye"))),
        ]
    return messages


def check_camera_frames(path: Path) -> None:
    recording = open_recording([path])
    frames = list(recording.frames())
    assert [frame.stamp_ns for frame in frames] == [10**9, 2 * 10**9]
    for index, frame in enumerate(frames):
        assert frame.image.header.frame_id == frame.camera_info.header.frame_id == "eye"
        assert stamp_ns(frame.camera_info) == stamp_ns(frame.image) == frame.stamp_ns
        np.testing.assert_array_equal(frame.image.data.reshape(HEIGHT, WIDTH, 3), picture(index))
        np.testing.assert_allclose(frame.camera_info.k, [30, 0, 14, 0, 31, 13, 0, 0, 1])
        assert frame.reference.data.view(np.float32)[0] == 2.0 + index
    assert recording.camera == "CameraInfo of the bag"


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("compress", [False, True])
def test_rosbag2_folder_and_its_file_alone(tmp_path: Path, plugin: StoragePlugin, compress: bool) -> None:
    folder = write_ros2(tmp_path / "bag", plugin, camera_messages(), compress)
    check_camera_frames(folder)
    (folder / "metadata.yaml").unlink()
    check_camera_frames(folder)
    check_camera_frames(next(folder.iterdir()))


def test_ros1_bag_with_compressed_images(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types

    def head(stamp: int) -> object:
        time = types["builtin_interfaces/msg/Time"](sec=stamp, nanosec=7)
        return types["std_msgs/msg/Header"](seq=3, stamp=time, frame_id="eye")

    png = cv2.imencode(".png", picture()[..., ::-1])[1]
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    info = types["sensor_msgs/msg/CameraInfo"](
        head(5), HEIGHT, WIDTH, "plumb_bob", np.array([0.1, 0, 0, 0, 0]), CAMERA.K.numpy().ravel(), np.eye(3).ravel(),
        np.eye(3, 4).ravel(), 0, 0, roi,
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
    np.testing.assert_array_equal(cv2.imdecode(frame.image.data, cv2.IMREAD_COLOR)[..., ::-1], picture())


def test_images_keep_their_order_and_size(tmp_path: Path) -> None:
    for name, width in (("b.png", WIDTH), ("a.bmp", 2 * WIDTH)):
        cv2.imwrite(str(tmp_path / name), picture(width=width)[..., ::-1])
    (tmp_path / "notes.txt").write_text("not an image")
    recording = open_recording([tmp_path], fov=90.0)
    first, second = recording.frames()
    assert (first.image.width, second.image.width) == (2 * WIDTH, WIDTH)
    np.testing.assert_array_equal(second.image.data.reshape(HEIGHT, WIDTH, 3), picture())
    # 90 degrees: the focal length is half the width; integer pixel centres: the middle is at (w - 1) / 2.
    np.testing.assert_allclose(second.camera_info.k[[0, 2, 4, 5]], [WIDTH / 2, (WIDTH - 1) / 2, WIDTH / 2, 11.5])
    assert first.stamp_ns < second.stamp_ns
    assert "90 degrees" in recording.camera
    assert "assumed" in open_recording([tmp_path / "b.png", tmp_path / "a.bmp"]).camera


@pytest.mark.parametrize("depth_file", ["depth.png", "depth_m.npy"])
def test_rgbd_folder(tmp_path: Path, depth_file: str) -> None:
    depth = np.full((HEIGHT, WIDTH), 1.5, np.float32)
    depth[0, 0] = 0.0
    cv2.imwrite(str(tmp_path / "rgb.png"), picture()[..., ::-1])
    if depth_file.endswith("png"):
        cv2.imwrite(str(tmp_path / depth_file), (depth * 5000).astype(np.uint16))
    else:
        np.save(tmp_path / depth_file, depth.astype(np.float64))
    intrinsics = {
        "fx": 30.0,
        "fy": 31.0,
        "cx": 14.0,
        "cy": 13.0,
        "depth_scale": 5000.0,
        "distortion": [0.1, 0, 0, 0, 0],
    }
    (tmp_path / "intrinsics.json").write_text(json.dumps(intrinsics))
    (frame,) = open_recording([tmp_path]).frames()
    reference = frame.reference.data.view(np.float32).reshape(HEIGHT, WIDTH)
    assert np.isnan(reference[0, 0]) and reference[1, 1] == 1.5
    np.testing.assert_allclose(frame.camera_info.k[[0, 2, 4, 5]], [30, 14, 31, 13])
    assert frame.camera_info.d[0] == 0.1


def test_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (WIDTH * 2, HEIGHT * 2))
    for index in range(5):
        writer.write(np.full((HEIGHT * 2, WIDTH * 2, 3), index * 40, np.uint8))
    writer.release()
    frames = list(open_recording([path], limit=4).frames())
    assert np.diff([frame.stamp_ns for frame in frames]).tolist() == [10**8] * 3
    shown = cv2.imdecode(frames[3].image.data, cv2.IMREAD_COLOR)
    assert shown.shape == (HEIGHT * 2, WIDTH * 2, 3) and abs(int(shown.mean()) - 120) <= 3
    assert frames[0].camera_info.width == WIDTH * 2


def test_calibration_for_another_size_is_not_used(tmp_path: Path) -> None:
    wide = image_message(picture(width=WIDTH * 2), "rgb8", header(10**9, "eye"))
    messages = [camera_messages()[0], ("/cam/image_raw", wide)]
    recording = open_recording([write_ros2(tmp_path / "bag", StoragePlugin.MCAP, messages)])
    (frame,) = recording.frames()
    assert "32 x 24" in recording.camera and "64 x 24" in recording.camera
    assert frame.camera_info.width == WIDTH * 2


@pytest.mark.parametrize(("name", "is_rectified"), [("image_rect", True), ("image_raw", False)])
def test_calibration_of_a_rectified_topic_is_that_of_its_images(tmp_path: Path, name: str, is_rectified: bool) -> None:
    projection = [25.0, 0.0, 15.0, -3.0, 0.0, 26.0, 12.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = camera_info_message(CAMERA, header(10**9, "eye"), [0.1, 0.0, 0.0, 0.0, 0.0], projection)
    messages = [("/cam/camera_info", info), (f"/cam/{name}", image_message(picture(), "rgb8", header(10**9, "eye")))]
    (frame,) = open_recording([write_ros2(tmp_path / "bag", StoragePlugin.MCAP, messages)]).frames()
    expected = [25, 0, 15, 0, 26, 12, 0, 0, 1] if is_rectified else [30, 0, 14, 0, 31, 13, 0, 0, 1]
    np.testing.assert_allclose(frame.camera_info.k, expected)
    assert bool(frame.camera_info.d.any()) is not is_rectified


def test_written_frames_are_read_again(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "bag", StoragePlugin.MCAP, camera_messages())
    for out in (tmp_path / "out", tmp_path / "out.mcap"):
        assert write_frames(out, open_recording([folder]).frames()) == 2
        assert write_frames(out, open_recording([folder]).frames()) == 2  # over the old one
        check_camera_frames(out)
    assert (tmp_path / "out" / "metadata.yaml").is_file() and (tmp_path / "out.mcap").is_file()
    topics = [topic for topic, _, _, _ in read_messages(tmp_path / "out.mcap")]
    assert topics == ["/camera_info", "/reference/depth", "/image"] * 2
    assert [kind for _, kind, _, _ in read_messages(tmp_path / "out.mcap", ["/image"])] == ["sensor_msgs/msg/Image"] * 2


def test_an_interrupted_writer_keeps_the_old_bag_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.mcap"
    folder = write_ros2(tmp_path / "bag", StoragePlugin.MCAP, camera_messages())
    write_frames(out, open_recording([folder]).frames())
    before = out.read_bytes()
    with pytest.raises(RuntimeError), BagWriter(out) as bag:
        bag.write("/other", camera_messages()[0][1])
        raise RuntimeError
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag", "out.mcap"]


def test_several_image_topics_ask_for_one(tmp_path: Path) -> None:
    messages = [*camera_messages(1), ("/other/image", image_message(picture(7), "rgb8", header(10**9, "eye")))]
    path = write_ros2(tmp_path / "bag", StoragePlugin.MCAP, messages)
    with pytest.raises(InputError, match=r"2 image topics, choose one with --topic: /cam/image_raw, /other/image"):
        open_recording([path])
    with pytest.raises(InputError, match="no images on /none; image topics: /cam/image_raw"):
        open_recording([path], topic="/none")
    with pytest.raises(InputError, match="no depth images on /cam/image_raw; depth topics: /reference/depth"):
        open_recording([path], topic="/cam/image_raw", reference_topic="/cam/image_raw")
    (frame,) = open_recording([path], topic="other/image").frames()
    assert frame.image.data.reshape(HEIGHT, WIDTH, 3)[0, 0, 2] == 70


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5])
@pytest.mark.parametrize("name", ["cut.mcap", "cut.db3", "cut.bag"])
def test_broken_bags_are_one_clear_line(tmp_path: Path, name: str, share: float) -> None:
    plugin = StoragePlugin.SQLITE3 if name.endswith("db3") else StoragePlugin.MCAP
    bag = write_ros2(tmp_path / "bag", plugin, camera_messages())
    whole = next(file for file in bag.iterdir() if file.suffix in (".db3", ".mcap")).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=name) as caught:
        list(open_recording([path]).frames())
    assert "\n" not in str(caught.value)


def test_bad_inputs_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*nowhere"):
        open_recording([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="expected images, a bag or an RGB-D frame in this folder, found none"):
        open_recording([tmp_path])
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(InputError, match=r"text.txt: expected images, a folder, a video or a bag"):
        open_recording([tmp_path / "text.txt"])
    with pytest.raises(InputError, match="is not a bag"):
        open_recording([tmp_path / "text.txt"], topic="/image")
    path = write_ros2(tmp_path / "bag", StoragePlugin.MCAP, [camera_messages()[0]])
    with pytest.raises(InputError, match="no image topic"):
        open_recording([path])
    write_ros2(tmp_path / "bag2", StoragePlugin.MCAP, camera_messages()[1:2])
    with pytest.raises(InputError, match="no image topic"):
        open_recording([tmp_path / "bag2"])
    garbled = message(COMPRESSED_IMAGE, header=header(1, "eye"), format="jpeg", data=np.zeros(9, np.uint8))
    path = write_ros2(tmp_path / "bag3", StoragePlugin.MCAP, [("/image/compressed", garbled)])
    with pytest.raises(InputError, match="jpeg image cannot be decoded"):
        open_recording([path])


def test_truncated_image_and_wrong_calibration(tmp_path: Path) -> None:
    png = cv2.imencode(".png", picture())[1].tobytes()
    (tmp_path / "rgb.png").write_bytes(png[:60])
    with pytest.raises(InputError, match=r"rgb.png: not an image that OpenCV reads"):
        list(open_recording([tmp_path / "rgb.png"]).frames())
    (tmp_path / "intrinsics.json").write_text('{"fx": 1, "fy": 1}')
    with pytest.raises(InputError, match="missing cx, cy"):
        open_recording([tmp_path])


def test_all_recorded_camera_data(shared: Path) -> None:
    """The real recordings: each gives an image with a calibration of its size, the RGB-D frames also a depth."""
    data = shared / "data"
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
