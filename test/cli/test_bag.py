"""``lotus2 bag``: every frame of a recording comes out, on the node's topics, at its own stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from lotus2_ros import cli
from lotus2_ros.bags import RecordedFrame, read_messages, write_frames
from lotus2_ros.bags.frames import camera_info_message, header, image_message
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import save_bundle
from lotus2_ros.ros.serialization import deserialize

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
