"""Images, an RGB-D folder, video."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest

from lotus2_ros.bags import InputError, inputs, open_recording
from lotus2_ros.inference.image_files import read_rgb


def test_images_keep_their_order_and_size(recorder, tmp_path):
    for name, width in (("b.png", recorder.width), ("a.bmp", 2 * recorder.width)):
        cv2.imwrite(str(tmp_path / name), recorder.picture(width=width)[..., ::-1])
    (tmp_path / "notes.txt").write_text("not an image")
    recording = open_recording([tmp_path], fov=90.0)
    first, second = recording.frames()
    assert (first.image.width, second.image.width) == (2 * recorder.width, recorder.width)
    np.testing.assert_array_equal(second.image.data.reshape(recorder.height, recorder.width, 3), recorder.picture())
    # 90 degrees: the focal length is half the width; integer pixel centers: the middle is at (w - 1) / 2.
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


def test_names_that_are_not_utf8_are_read(recorder, tmp_path):
    """OpenCV ends the process with SIGSEGV on such a name."""
    name = os.fsdecode(b"caf\xe9")
    write_picture(recorder, tmp_path / "a.png").rename(tmp_path / f"{name}.png")
    (only,) = open_recording([tmp_path]).frames()
    np.testing.assert_array_equal(only.image.data.reshape(recorder.height, recorder.width, 3), recorder.picture())
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (recorder.width, recorder.height))
    writer.write(recorder.picture())
    writer.release()
    assert len(list(open_recording([clip.rename(tmp_path / f"{name}.avi")]).frames())) == 1


def write_picture(recorder, path, width=None):
    cv2.imwrite(str(path), recorder.picture(width=width or recorder.width)[..., ::-1])
    return path


def test_a_damaged_image_is_skipped_and_the_others_stay(recorder, tmp_path):
    for name in "abc":
        write_picture(recorder, tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    said: list[str] = []
    frames = list(open_recording([tmp_path], say=said.append).frames())
    assert [frame.stamp_ns for frame in frames] == [10**9, 3 * 10**9]
    (line,) = said
    assert line.startswith("skipped: ") and "b.png: not an image that OpenCV reads" in line


def test_a_folder_says_what_it_skips(recorder, tmp_path):
    write_picture(recorder, tmp_path / "a.png")
    for name in ("b.jpg", "notes.txt", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "c.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "d.jpg")  # nothing may read it, for it never ends
    said: list[str] = []
    assert len(list(open_recording([tmp_path], say=said.append).frames())) == 1
    assert said == [f"{tmp_path}: 1 of 5 files are used, 4 skipped as no images: b.jpg, c.jpg, d.jpg, ..."]
    with pytest.raises(InputError, match=r"d.jpg: expected images, a folder, a video or a bag, got no content"):
        open_recording([tmp_path / "d.jpg"])


def test_a_file_that_may_not_be_read_is_named_and_the_others_stay(recorder, tmp_path, monkeypatch):
    def is_image(path):
        if path.name == "b.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return True

    monkeypatch.setattr(inputs, "is_image", is_image)
    for name in "ab":
        write_picture(recorder, tmp_path / f"{name}.png")
    said: list[str] = []
    assert len(list(open_recording([tmp_path], say=said.append).frames())) == 1
    assert said == [f"{tmp_path}: 1 of 2 files are used, 1 skipped as no images: b.png (Permission denied)"]


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_truncated_jpeg_is_refused_and_what_follows_its_end_is_not_looked_at(tmp_path, progressive):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    path = tmp_path / "a.jpg"
    for share in (0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"a\.jpg: not an image that OpenCV reads .*without its end"):
            read_rgb(path)
    path.write_bytes(whole + b"a film \xff\xda of a phone")
    assert read_rgb(path).shape == (64, 64, 3)


@pytest.mark.parametrize(("width", "height"), [(32, 24), (64, 48), (16, 12)])
@pytest.mark.parametrize("as_folder", [True, False])
def test_intrinsics_are_scaled_to_the_images_beside_them(recorder, tmp_path, width, height, as_folder):
    """K of a (64, 48) image for one of (32, 24): pixel edges keep their place, so cx = (31.5 + .5) / 2 - .5."""
    path = write_picture(recorder, tmp_path / "img_001.png")
    calibration = {"fx": 50.0, "fy": 52.0, "cx": 0.4 * width, "cy": 0.6 * height, "width": width, "height": height}
    (tmp_path / "intrinsics.json").write_text(json.dumps(calibration))
    recording = open_recording([tmp_path if as_folder else path])
    (frame,) = recording.frames()
    scale = recorder.width / width
    expected = [50 * scale, (0.4 * width + 0.5) * scale - 0.5, 52 * scale, (0.6 * height + 0.5) * scale - 0.5]
    np.testing.assert_allclose(frame.camera_info.k[[0, 2, 4, 5]], expected)
    assert (frame.camera_info.width, frame.camera_info.height) == (recorder.width, recorder.height)
    assert recording.camera.startswith("intrinsics.json")
    assert "90 degrees" in open_recording([path], fov=90).camera


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 64, "height": 64}, "expected an image of the proportions of intrinsics.json (64 x 64), got 32 x 24"),
        ({"width": 64}, "expected width and height together"),
        ({"width": -4, "height": 3}, "expected a positive width"),
        ({"fx": "wide"}, "expected numbers as fx, got 'wide'"),
        ({"fx": 0}, "expected a positive fx"),
        ({"fx": 10**400}, "expected numbers as fx, got 1000"),
        ({"width": 64.5, "height": 48}, "expected whole pixels as width, got 64.5"),
        ({"P": [0] * 12}, "expected 12 numbers as P with positive focal lengths"),
        ({"distortion": [True, 0, 0, 0]}, "expected numbers as distortion, got True"),
        ({"distortion": [0.1, 0, 0]}, "distortion: expected 4 or 5 coefficients of plumb_bob, got 3"),
        ({"P": [1, 2]}, "expected 12 numbers as P with positive focal lengths, got [1, 2]"),
        ({"distortion": [None]}, "expected numbers as distortion, got None"),
    ],
)
def test_intrinsics_that_cannot_be_used_are_refused(recorder, tmp_path, changes, message):
    path = write_picture(recorder, tmp_path / "img_001.png")
    calibration = {"fx": 50.0, "fy": 52.0, "cx": 16.0, "cy": 12.0, **changes}
    (tmp_path / "intrinsics.json").write_text(json.dumps(calibration))
    with pytest.raises(InputError, match=re.escape(message)):
        list(open_recording([path]).frames())


def test_intrinsics_that_are_hardly_right_are_said_once(recorder, tmp_path):
    for name in "ab":
        path = write_picture(recorder, tmp_path / f"{name}.png")
    (tmp_path / "intrinsics.json").write_text(json.dumps({"fx": 500.0, "fy": 500.0, "cx": 319.5, "cy": 239.5}))
    for source, count in ((tmp_path, 2), (path, 1)):
        said: list[str] = []
        assert len(list(open_recording([source], say=said.append).frames())) == count
        (line,) = said
        assert "intrinsics.json: expected a principal point inside the image of 32x24" in line and "640x480" in line


def test_heic_is_decoded_as_a_whole(tmp_path):
    height, width = 600, 700  # more than a tile of a phone's photo
    v, u = np.mgrid[:height, :width]
    pixels = np.stack([u * 255 // width, v * 255 // height, np.full_like(u, 30)], axis=-1).astype(np.uint8)
    photo = pillow_heif.from_bytes("RGB", (width, height), pixels.tobytes())
    photo.save(tmp_path / "photo.heic", quality=95)
    for name in (tmp_path / "photo.heic", tmp_path):
        (frame,) = open_recording([name]).frames()
        assert (frame.image.width, frame.image.height) == (width, height)
        shown = frame.image.data.reshape(height, width, 3).astype(int)
        assert abs(shown - pixels).mean() < 3


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_an_image_that_announces_gigabytes_is_refused_by_its_header(tmp_path, kind):
    side = 60000
    if kind == "png":
        head = b"IHDR" + struct.pack(">II5B", side, side, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        data += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    else:
        size = struct.pack("<HH", side, side)
        data = b"GIF89a" + size + b"\x80\0\0" + b"\0" * 6 + b",\0\0\0\0" + size
    path = tmp_path / f"huge.{kind}"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"huge.*: expected at most 200 megapixels, got 60000 x 60000"):
        list(open_recording([path]).frames())


def test_a_video_that_cannot_be_decoded_names_its_codec(recorder, tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"XYZW"))
    with pytest.raises(InputError, match=r"clip.avi: .*ffmpeg -i clip.avi"):
        open_recording([path])


def test_a_video_without_its_end_is_damaged_and_has_no_codec(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4s", 1000, b"mdat") + bytes(500))
    with pytest.raises(InputError, match=r"clip.mp4: .*got damaged data or a truncated file; copy it again, or try"):
        open_recording([path])


def boxes(data, start, end):
    """(type, offset, size) of the boxes of an MP4."""
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, size
        start += size


def with_frame_durations(data, durations):
    """An MP4 whose last box is moov, with a duration for each of its frames in place of one for all."""
    path, start, end = [], 0, len(data)
    for wanted in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        offset, size = next((at, size) for kind, at, size in boxes(data, start, end) if kind == wanted)
        path.append(offset)
        start, end = offset + 8, offset + size
    table = b"".join(struct.pack(">II", 1, duration) for duration in durations)
    new = struct.pack(">I4sII", 16 + len(table), b"stts", 0, len(durations)) + table
    grown = bytearray(data[: path[-1]] + new + data[end:])
    for offset in path[:-1]:
        struct.pack_into(">I", grown, offset, struct.unpack_from(">I", data, offset)[0] + len(new) - (end - path[-1]))
    return bytes(grown)


def test_a_video_of_variable_rate_keeps_its_times(tmp_path):
    path = tmp_path / "phone.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), index * 40, np.uint8))
    writer.release()
    data = path.read_bytes().replace(b"edts", b"free")  # its edit list has the old duration
    at = data.index(b"stts")
    entries, frames, unit = struct.unpack_from(">III", data, at + 8)
    assert (entries, frames) == (1, 5)
    path.write_bytes(with_frame_durations(data, [unit, 3 * unit, unit, 5 * unit, unit]))
    stamps = [frame.stamp_ns for frame in open_recording([path]).frames()]
    assert stamps[0] == 10**9
    np.testing.assert_allclose(np.diff(stamps) / 1e9, [0.1, 0.3, 0.1, 0.5], atol=2e-3)


def test_truncated_image_and_wrong_calibration(recorder, tmp_path):
    png = cv2.imencode(".png", recorder.picture())[1].tobytes()
    (tmp_path / "rgb.png").write_bytes(png[:60])
    with pytest.raises(InputError, match=r"rgb.png: not an image that OpenCV reads"):
        list(open_recording([tmp_path / "rgb.png"]).frames())
    (tmp_path / "intrinsics.json").write_text('{"fx": 1, "fy": 1}')
    with pytest.raises(InputError, match="missing cx, cy"):
        open_recording([tmp_path])
