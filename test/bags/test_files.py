"""Images, an RGB-D folder, video."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from lotus2_ros.bags import InputError, open_recording


def test_images_keep_their_order_and_size(recorder, tmp_path):
    for name, width in (("b.png", recorder.width), ("a.bmp", 2 * recorder.width)):
        cv2.imwrite(str(tmp_path / name), recorder.picture(width=width)[..., ::-1])
    (tmp_path / "notes.txt").write_text("not an image")
    recording = open_recording([tmp_path], fov=90.0)
    first, second = recording.frames()
    assert (first.image.width, second.image.width) == (2 * recorder.width, recorder.width)
    np.testing.assert_array_equal(second.image.data.reshape(recorder.height, recorder.width, 3), recorder.picture())
    # 90 degrees: the focal length is half the width; integer pixel centres: the middle is at (w - 1) / 2.
    np.testing.assert_allclose(
        second.camera_info.k[[0, 2, 4, 5]], [recorder.width / 2, (recorder.width - 1) / 2, recorder.width / 2, 11.5]
    )
    assert first.stamp_ns < second.stamp_ns
    assert "90 degrees" in recording.camera
    assert "assumed" in open_recording([tmp_path / "b.png", tmp_path / "a.bmp"]).camera


@pytest.mark.parametrize("depth_file", ["depth.png", "depth_m.npy"])
def test_rgbd_folder(recorder, tmp_path, depth_file):
    depth = np.full((recorder.height, recorder.width), 1.5, np.float32)
    depth[0, 0] = 0.0
    cv2.imwrite(str(tmp_path / "rgb.png"), recorder.picture()[..., ::-1])
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
    reference = frame.reference.data.view(np.float32).reshape(recorder.height, recorder.width)
    assert np.isnan(reference[0, 0]) and reference[1, 1] == 1.5
    np.testing.assert_allclose(frame.camera_info.k[[0, 2, 4, 5]], [30, 14, 31, 13])
    assert frame.camera_info.d[0] == 0.1


def test_video(recorder, tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (recorder.width * 2, recorder.height * 2)
    )
    for index in range(5):
        writer.write(np.full((recorder.height * 2, recorder.width * 2, 3), index * 40, np.uint8))
    writer.release()
    frames = list(open_recording([path], limit=4).frames())
    assert np.diff([frame.stamp_ns for frame in frames]).tolist() == [10**8] * 3
    shown = cv2.imdecode(frames[3].image.data, cv2.IMREAD_COLOR)
    assert shown.shape == (recorder.height * 2, recorder.width * 2, 3) and abs(int(shown.mean()) - 120) <= 3
    assert frames[0].camera_info.width == recorder.width * 2


def test_truncated_image_and_wrong_calibration(recorder, tmp_path):
    png = cv2.imencode(".png", recorder.picture())[1].tobytes()
    (tmp_path / "rgb.png").write_bytes(png[:60])
    with pytest.raises(InputError, match=r"rgb.png: not an image that OpenCV reads"):
        list(open_recording([tmp_path / "rgb.png"]).frames())
    (tmp_path / "intrinsics.json").write_text('{"fx": 1, "fy": 1}')
    with pytest.raises(InputError, match="missing cx, cy"):
        open_recording([tmp_path])
