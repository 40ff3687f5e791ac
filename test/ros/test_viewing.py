"""Results in Rerun: what is in the file that `lotus2 view --save` writes."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("rerun", reason="rerun-sdk is missing: pip install 'lotus2_ros[view]'")

import rclpy
from lotus2_ros.msg import FrameReport
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lotus2_ros import cli
from lotus2_ros.bags import RecordedFrame, write_frames
from lotus2_ros.bags.frames import camera_info_message, header, image_message
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.ros.messages import tensor_to_image
from lotus2_ros.ros.viewing import view_node
from lotus2_ros.view.rerun_log import RerunLog


def entities(path: Path) -> dict[str, int]:
    """How many rows each entity of a recording has."""
    from rerun.chunk import RrdReader

    found: dict[str, int] = {}
    for chunk in RrdReader(str(path)).stream().to_chunks():
        found[chunk.entity_path] = found.get(chunk.entity_path, 0) + chunk.num_rows
    return found


def test_a_recording_with_everything_in_it(tmp_path, random_bundle, capsys):
    rng, frames = np.random.default_rng(0), []
    for index in range(2):
        head = header((index + 1) * 10**9, "eye")
        pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        info = camera_info_message(Camera.from_fov(64, 48, 60), head)
        frames.append(RecordedFrame((index + 1) * 10**9, image_message(pixels, "rgb8", head), info, None))
    write_frames(tmp_path / "in.mcap", frames)
    results, saved = tmp_path / "out.mcap", tmp_path / "out.rrd"
    arguments = ["bag", str(tmp_path / "in.mcap"), str(results), "--model", str(random_bundle), "--sharpen-every", "2"]
    assert cli.main(arguments) == 0
    assert cli.main(["view", str(results), "--save", str(saved)]) == 0
    found = entities(saved)
    for stage, count in (("coarse", 2), ("sharp", 1)):
        for name in (f"/camera/depth/{stage}", f"/camera/normals/{stage}", f"/{stage}/points"):
            assert found[name] == count, name
        assert found[f"/latency/{stage}/decode"] == count
    assert found["/camera/image"] == found["/scale/source"] == found["/frames/dropped"] == 2
    assert cli.main(["view", str(results), "--save", str(saved)]) == 2
    assert "already exists; --overwrite replaces it" in capsys.readouterr().err
    assert cli.main(["view", str(tmp_path / "in.mcap"), "--save", str(saved), "--overwrite"]) == 2
    assert "no results of a node 'perception'; `lotus2 bag" in capsys.readouterr().err
    assert entities(saved) == found and not list(tmp_path.glob("*.partial"))  # the file of before is still there
    for place in ("out.bag", "missing/out.rrd"):
        assert cli.main(["view", str(results), "--save", str(tmp_path / place)]) == 2


def test_a_running_node(tmp_path):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("perception", context=context)
    depth = node.create_publisher(Image, "/perception/depth/image", 1)
    report = node.create_publisher(FrameReport, "/perception/report", 1)
    ended = threading.Event()

    def publish() -> None:
        stamp = Header(frame_id="eye")
        while not ended.wait(0.1):
            stamp.stamp.sec = int(time.time())
            depth.publish(tensor_to_image(torch.full((4, 6), 2.0), "32FC1", stamp))
            report.publish(FrameReport(header=stamp, stage="core", metric=True, scale_source="camera_height"))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        shown = 0
        with RerunLog(tmp_path / "live.rrd") as log:
            for _ in range(10):  # a busy machine finds the node late
                shown += view_node(log, "perception", "/image", compressed=False, seconds=2.0)
                if shown >= 4:
                    break
    finally:
        ended.set()
        thread.join()
        node.destroy_node()
        context.shutdown()
    found = entities(tmp_path / "live.rrd")
    assert found["/camera/depth/coarse"] >= 1 and found["/scale/source"] >= 1


def test_a_node_that_says_nothing_leaves_no_file(tmp_path, capsys):
    assert cli.main(["view", "--seconds", "0.1", "--save", str(tmp_path / "live.rrd")]) == 1
    assert "no results of a node 'perception' came; `lotus2 doctor` says why" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_viewer_is_found_without_an_activated_environment(monkeypatch):
    found = []
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("rerun.RecordingStream.spawn", lambda *_, **__: found.append(shutil.which("rerun")))
    with RerunLog():
        assert found and found[0]
