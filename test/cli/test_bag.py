"""``lotus2 bag``: every frame of a recording comes out, on the node's topics, at its own stamp."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from lotus2_ros import cli
from lotus2_ros.bags import BagWriter, RecordedFrame, read_messages, write_frames
from lotus2_ros.bags.frames import COMPRESSED_IMAGE, camera_info_message, header, image_message, message
from lotus2_ros.bags.writer import write_frame
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import save_bundle
from lotus2_ros.ros import offline, recorded_camera
from lotus2_ros.ros.serialized import deserialize

HEIGHT, WIDTH, FRAMES = 48, 64, 3


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Three frames of which the second has an encoding that no one knows."""
    rng = np.random.default_rng(0)
    camera = Camera.from_fov(WIDTH, HEIGHT, 60)
    frames = []
    for index in range(FRAMES):
        head = header(index * 10**9 + 5, "eye")
        image = image_message(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8), "rgb8", head)
        if index == 1:
            image.encoding = "unheard_of"
        frames.append(RecordedFrame(index * 10**9 + 5, image, camera_info_message(camera, head), None))
    write_frames(tmp_path / "in.mcap", frames)
    return tmp_path / "in.mcap"


@pytest.fixture
def bundle(small: Lotus2, tmp_path: Path) -> Path:
    save_bundle(small, tmp_path / "bundle", metadata={"name": "small", "licence": "none"}, dtype=torch.float32)
    return tmp_path / "bundle"


def test_bag_in_bag_out(recording: Path, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    arguments = ["bag", str(recording), str(out), "--model", str(bundle), "--sharpen-every", "2"]
    assert cli.main(arguments) == 0
    found: dict[str, list[int]] = {}
    for topic, kind, time_ns, raw in read_messages(out):
        message = deserialize(raw, kind)
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == time_ns
        assert message.header.frame_id == "eye"
        found.setdefault(topic, []).append(time_ns)
    answered = [5, 2 * 10**9 + 5]
    for topic in ("disparity/image", "normals/image", "normals/color", "relative/depth/image", "relative/points"):
        assert found[f"/perception/{topic}"] == found[f"/perception/sharp/{topic}"] == answered
    assert found["/image"] == [5, 10**9 + 5, 2 * 10**9 + 5]
    assert len(found["/perception/report"]) == 4
    assert "frame 1 has no geometry: expected an encoding of" in "".join(capsys.readouterr())


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["bag", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"lotus2 bag: no such file or folder: {tmp_path / 'none'}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("bag", "--workers", "100000000"),
        ("bag", "--keep-topics", "/a,"),
        ("bag", "--frames", "-1"),
        ("map", "--voxel", "1e-300"),
        ("map", "--voxel", "inf"),
    ],
    ids=" ".join,
)
def test_numbers_and_lists_that_cannot_be_are_refused(recording: Path, tmp_path: Path, capsys, command) -> None:
    """Before anything is started or written."""
    name, *options = command
    assert cli.main([name, str(recording), str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lotus2 {name}: expected") and "got" in line and not (tmp_path / "out").exists()


def test_any_number_of_frames_may_be_asked_for(recording: Path, tmp_path: Path, bundle: Path) -> None:
    arguments = ["bag", str(recording), str(tmp_path / "out"), "--model", str(bundle)]
    assert cli.main([*arguments, "--frames", str(10**30)]) == 0


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("scale.max_age:={", "expected -p NAME:=VALUE with a value in YAML, got 'scale.max_age:={'"),
        ("cloud.strid:=2", "unknown parameter cloud.strid; did you mean cloud.stride?"),
        ("input.rectified:=maybe", "input.rectified: expected one of auto, yes, no, got 'maybe'"),
        ("input.fov:=70", "expected --fov for a recording, got -p input.fov:=70"),
    ],
)
def test_bad_parameters_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, given: str, text: str) -> None:
    assert cli.main(["bag", str(tmp_path), str(tmp_path / "out"), "-p", given]) == 2
    assert capsys.readouterr().err == f"lotus2 bag: {text}\n"


def test_parameters_of_the_input_hold_for_recordings(tmp_path: Path, bundle: Path) -> None:
    """webp is decoded if it is asked for, and images of any topic may be rectified: their calibration is P."""
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    head = header(5, "eye")
    data = cv2.imencode(".webp", pixels)[1]
    projection = [70.0, 0.0, 30.0, 0.0, 0.0, 71.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = camera_info_message(Camera.from_fov(WIDTH, HEIGHT, 60), head, [0.1] * 5, projection)
    image = message(COMPRESSED_IMAGE, header=head, format="webp", data=data)
    write_frames(tmp_path / "in.mcap", [RecordedFrame(5, image, info, None)])
    arguments = ["bag", str(tmp_path / "in.mcap"), str(tmp_path / "out.mcap"), "--model", str(bundle)]
    assert cli.main(arguments) == 1  # webp is not decoded unless it is asked for
    for given in ("input.compressed_formats:=[webp]", "input.rectified:=yes"):
        arguments += ["-p", given]
    assert cli.main(arguments) == 0
    ((_, kind, _, raw),) = read_messages(tmp_path / "out.mcap", ["/camera_info"])
    assert deserialize(raw, kind).k[0] == 70.0


def test_an_error_of_any_class_costs_one_frame(
    recording: Path, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """OpenCV's own error is neither a ValueError nor a RuntimeError."""
    to_tensor = recorded_camera.image_to_tensor

    def failing(image, config):
        if image.header.stamp.sec == 0:
            raise cv2.error("OpenCV: no such conversion")
        return to_tensor(image, config)

    monkeypatch.setattr(recorded_camera, "image_to_tensor", failing)
    assert cli.main(["bag", str(recording), str(tmp_path / "out.mcap"), "--model", str(bundle)]) == 0
    assert "failed: frame 0: error: OpenCV: no such conversion" in capsys.readouterr().out
    assert stamps_of(tmp_path / "out.mcap", "/perception/report") == [2 * 10**9 + 5]


def stamps_of(bag: Path, topic: str) -> list[int]:
    return [time_ns for _, _, time_ns, _ in read_messages(bag, [topic])]


def test_a_run_without_geometry_exits_with_1_and_says_why(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture
) -> None:
    head = header(5, "eye")
    image = image_message(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "unheard_of", head)
    info = camera_info_message(Camera.from_fov(WIDTH, HEIGHT, 60), head)
    write_frames(tmp_path / "in.mcap", [RecordedFrame(5, image, info, None)])
    assert cli.main(["bag", str(tmp_path / "in.mcap"), str(tmp_path / "out.mcap"), "--model", str(bundle)]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("lotus2 bag: ") and "no frame gave geometry: expected an encoding of" in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "in.mcap"]


def test_an_interrupted_run_goes_on_with_resume(
    recording: Path, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.mcap"
    arguments = ["bag", str(recording), str(out), "--model", str(bundle)]

    def interrupted(bag: BagWriter, frame: RecordedFrame) -> None:
        if frame.stamp_ns == 2 * 10**9 + 5:
            raise KeyboardInterrupt
        write_frame(bag, frame)

    with monkeypatch.context() as patch:
        patch.setattr(offline, "write_frame", interrupted)
        assert cli.main(arguments) == 130
    assert "--resume" in capsys.readouterr().err and not out.exists()
    assert cli.main(arguments) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    assert cli.main([*arguments, "--resume"]) == 0
    assert stamps_of(out, "/image") == [5, 10**9 + 5, 2 * 10**9 + 5]
    assert stamps_of(out, "/perception/report") == [5, 2 * 10**9 + 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "in.mcap", "out.mcap"]


@pytest.mark.parametrize("output", [".", "in.mcap", "results", "link"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_nothing_of_somebody_else_is_replaced(
    recording: Path,
    tmp_path: Path,
    output: str,
    overwrite: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "results")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bag", "in.mcap", output, *overwrite]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lotus2 bag: {output}: ")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_sources_that_give_no_meters_are_said(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture) -> None:
    frames = []
    for index in range(2):
        head = header(index * 10**9 + 5, "eye")
        pixels = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        depth = image_message(np.full((HEIGHT, WIDTH), np.nan, np.float32), "32FC1", head)
        info = camera_info_message(Camera.from_fov(WIDTH, HEIGHT, 60), head)
        frames.append(RecordedFrame(index * 10**9 + 5, image_message(pixels, "rgb8", head), info, depth))
    write_frames(tmp_path / "in.mcap", frames)
    looks_up = ["-p", "scale.camera_height:=1.0", "-p", "scale.camera_pitch:=-90.0"]
    command = ["bag", str(tmp_path / "in.mcap"), str(tmp_path / "out.mcap"), "--model", str(bundle), *looks_up]
    assert cli.main(command) == 0
    error = capsys.readouterr().err
    assert "/reference/depth: the reference gave no metric scale in 2 results" in error
    assert "camera_height gave no metric scale in 2 results: expected a floor" in error
    assert "a reference is not used: reference/depth: expected a reference with some valid depth" in error
    assert len(stamps_of(tmp_path / "out.mcap", "/perception/report")) == 2
