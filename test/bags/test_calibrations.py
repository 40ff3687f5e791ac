"""Which camera_info of a bag belongs to an image topic, and what it says of the images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from lotus2_ros.bags import InputError, open_recording
from lotus2_ros.bags.calibrations import info_topics
from lotus2_ros.bags.frames import camera_info_message, header, image_message
from lotus2_ros.geometry.camera import Camera


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("/image", ["/camera_info"]),
        ("/camera/image_raw", ["/camera/camera_info_raw", "/camera/camera_info"]),
        ("/camera/image_raw/compressed", ["/camera/camera_info_raw", "/camera/camera_info"]),
        ("/left/image_rect", ["/left/camera_info_rect", "/left/camera_info"]),
        ("/zed/image_raw_color", ["/zed/camera_info_raw_color", "/zed/camera_info_raw", "/zed/camera_info"]),
        ("/gz/camera", ["/gz/camera_info"]),
    ],
)
def test_names_of_ros(image, expected):
    assert info_topics(image) == expected


def info(recorder, fx, frame_id="eye", **changes):
    camera = Camera.from_intrinsics(recorder.width, recorder.height, fx=fx, fy=31.0, cx=14.0, cy=13.0)
    return replace(camera_info_message(camera, header(10**9, frame_id)), **changes)


def record(recorder, path, image_topic, infos, width=None):
    pixels = recorder.picture(width=width or recorder.width)
    messages = [*infos.items(), (image_topic, image_message(pixels, "rgb8", header(10**9, "eye")))]
    return recorder.write(path, StoragePlugin.MCAP, messages)


@pytest.mark.parametrize(
    ("image_topic", "fx"),
    [("/cam/image_raw", 20.0), ("/cam/image_raw_color", 20.0), ("/cam/image_rect", 25.0), ("/cam/image_color", 30.0)],
)
def test_each_image_has_the_calibration_of_its_name(recorder, tmp_path, image_topic, fx):
    infos = {
        "/cam/camera_info_raw": info(recorder, 20.0),
        "/cam/camera_info_rect": info(recorder, 25.0),
        "/cam/camera_info": info(recorder, 30.0),
    }
    (frame,) = open_recording([record(recorder, tmp_path / "bag", image_topic, infos)]).frames()
    assert frame.camera_info.k[0] == fx


def test_unused_calibrations_are_named_and_can_be_chosen(recorder, tmp_path):
    infos = {"/a/camera_info": info(recorder, 20.0), "/b/camera_info": info(recorder, 25.0)}
    bag = record(recorder, tmp_path / "bag", "/cam/image_raw", infos)
    recording = open_recording([bag])
    assert "assumed" in recording.camera
    assert "the bag has camera_info on /a/camera_info, /b/camera_info, none used" in recording.camera
    chosen = open_recording([bag], camera_info_topic="/b/camera_info")
    (frame,) = chosen.frames()
    assert frame.camera_info.k[0] == 25.0 and chosen.camera == "CameraInfo of the bag, on /b/camera_info"
    with pytest.raises(InputError, match=r"no camera_info on /c; camera_info topics: /a/camera_info, /b/camera_info"):
        open_recording([bag], camera_info_topic="/c")


def test_the_only_calibration_is_taken_if_it_is_of_the_images_frame(recorder, tmp_path):
    for name, frame_id, fx in (("same", "eye", 20.0), ("other", "hand", None)):
        infos = {"/calibration": info(recorder, 20.0, frame_id)}
        recording = open_recording([record(recorder, tmp_path / name, "/cam/image_raw", infos)])
        (frame,) = recording.frames()
        assert (frame.camera_info.k[0] == 20.0) == (fx is not None)
        assert ("of another frame" in recording.camera) == (fx is None)


@pytest.mark.parametrize("changes", [{"width": 64}, {"k": np.full(9, np.nan)}])
def test_a_driver_whose_first_calibration_is_of_no_use_costs_one_frame(recorder, tmp_path, changes):
    first, good = (header(number * 10**9, "eye") for number in (1, 2))
    messages = [("/cam/camera_info", replace(info(recorder, 20.0), header=first, **changes))]
    messages += [("/cam/camera_info", replace(info(recorder, 20.0), header=good))]
    messages += [("/cam/image_raw", image_message(recorder.picture(), "rgb8", head)) for head in (first, good)]
    recording = open_recording([recorder.write(tmp_path / "bag", StoragePlugin.MCAP, messages)])
    assert recording.camera == "CameraInfo of the bag"
    assert list(recording.frames())[-1].camera_info.k[0] == 20.0


def test_an_uncalibrated_camera_is_named(recorder, tmp_path):
    infos = {"/cam/camera_info": info(recorder, 20.0, k=np.zeros(9))}
    recording = open_recording([record(recorder, tmp_path / "bag", "/cam/image_raw", infos)])
    assert "/cam/camera_info says uncalibrated" in recording.camera


def test_a_rectified_image_needs_p_alone(recorder, tmp_path):
    infos = {"/cam/camera_info": info(recorder, 20.0, k=np.zeros(9))}
    bag = record(recorder, tmp_path / "bag", "/cam/image_rect", infos)
    raw = record(recorder, tmp_path / "raw", "/cam/image_raw", infos)
    for recording in (open_recording([bag]), open_recording([raw], rectified="yes")):
        (frame,) = recording.frames()
        assert recording.camera == "CameraInfo of the bag" and frame.camera_info.k[0] == 20.0


@pytest.mark.parametrize("fx", [-20.0, np.nan])
def test_a_wrong_focal_length_is_not_called_uncalibrated(recorder, tmp_path, fx):
    infos = {"/cam/camera_info": info(recorder, 20.0, k=np.array([fx, 0, 14, 0, 31, 13, 0, 0, 1]))}
    recording = open_recording([record(recorder, tmp_path / "bag", "/cam/image_raw", infos)])
    assert "got fx=-20" in recording.camera if fx < 0 else "finite intrinsics" in recording.camera


def test_binning_and_region_of_interest_are_kept_as_live(recorder, tmp_path):
    """The images are of half the calibration's size."""
    full = info(recorder, 20.0, width=recorder.width * 2, height=recorder.height * 2)
    roi = replace(full.roi, x_offset=8, y_offset=4, width=recorder.width, height=recorder.height)
    for name, sent in (("binning", replace(full, binning_x=2, binning_y=2)), ("roi", replace(full, roi=roi))):
        recording = open_recording([record(recorder, tmp_path / name, "/cam/image_raw", {"/cam/camera_info": sent})])
        (frame,) = recording.frames()
        assert recording.camera.startswith("CameraInfo of the bag")
        assert frame.camera_info.k[0] == 20.0 and frame.camera_info.binning_x == sent.binning_x
        assert frame.camera_info.roi.x_offset == sent.roi.x_offset


def test_a_latched_calibration_holds_for_all_images(recorder, tmp_path):
    messages = [("/cam/camera_info", info(recorder, 20.0, header=header(0, "eye")))]
    for index in range(3):
        head = header((index + 5) * 10**9, "eye")
        messages.append(("/cam/image_raw", image_message(recorder.picture(index), "rgb8", head)))
    frames = list(open_recording([recorder.write(tmp_path / "bag", StoragePlugin.MCAP, messages)]).frames())
    assert [frame.camera_info.k[0] for frame in frames] == [20.0] * 3
