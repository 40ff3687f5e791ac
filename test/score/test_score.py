"""Scores by held-out measurements: what is held out, what is dropped, and the report."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import StoragePlugin, Writer

pytest.importorskip("rclpy")

from lotus2_ros import cli
from lotus2_ros.bags.frames import camera_info_message, header, image_message, typestore
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.reference import Reference
from lotus2_ros.score.held_out import split
from lotus2_ros.score.score import dropped


def test_held_out_measurements_are_not_given_and_are_found_again():
    depth = torch.arange(1.0, 1 + 60 * 80).reshape(60, 80)
    depth[:, ::3] = math.nan
    given, held = split(Reference(depth), share=0.3, seed=1)
    is_given = torch.isfinite(given.depth)
    assert torch.equal(given.depth[is_given], depth[is_given])
    assert len(held.depth) + int(is_given.sum()) == int(torch.isfinite(depth).sum())
    assert 0.15 < len(held.depth) / int(torch.isfinite(depth).sum()) < 0.45
    assert torch.equal(held.predicted(depth), held.depth)  # at its own place
    twice = depth.repeat_interleave(2, 0).repeat_interleave(2, 1)  # of a prediction of another size
    assert torch.equal(held.predicted(twice), held.depth)
    _, other = split(Reference(depth), share=0.3, seed=2)
    assert not torch.equal(other.depth, held.depth)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.05, 0),  # faster than the camera
        (0.17, 3),  # done at .17, .34, .51, ...: of .2 and .3 the newer, of .4 and .5, of .7 and .8
        (10.0, 8),  # the first is computed, the last waits
    ],
)
def test_a_latest_queue_drops_what_a_newer_frame_replaces(seconds, expected):
    stamps = [index * 0.1 for index in range(10)]
    assert dropped(stamps, [seconds] * 10) == expected


def test_a_recording_is_scored_by_its_own_depth(tmp_path, random_bundle, capsys):
    estimator, camera = load(random_bundle), Camera.from_fov(64, 48, 60)
    rng = np.random.default_rng(0)
    with Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for index in range(3):
            head = header((index + 1) * 10**9, "eye")
            pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            depth = 1 / (0.4 * estimator.predict(pixels).disparity + 0.1)
            messages = [
                ("/camera_info", camera_info_message(camera, head)),
                ("/image", image_message(pixels, "rgb8", head)),
            ]
            if index < 2:  # of which a tenth is wrong by a factor of two
                wrong = torch.from_numpy(rng.random((48, 64)) < 0.1)
                messages.append(
                    ("/reference/depth", image_message(torch.where(wrong, 2 * depth, depth).numpy(), "32FC1", head))
                )
            for topic, item in messages:
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, item.__msgtype__, typestore=typestore())
                raw = typestore().serialize_cdr(item, item.__msgtype__)
                writer.write(connections[topic], (index + 1) * 10**9, raw)
    out = tmp_path / "report"
    assert cli.main(["bag", str(tmp_path / "in"), str(out), "--score", "--model", str(random_bundle)]) == 0
    row = next(line for line in (out / "report.md").read_text().splitlines() if line.startswith(f"| {tmp_path}"))
    _, name, abs_rel, delta1, coverage, scored, failed, *_ = (cell.strip() for cell in row.split("|"))
    assert name.endswith("/image") and (scored, failed, coverage) == ("2 of 3", "0", "100 %")
    assert float(abs_rel) == pytest.approx(0.05, abs=0.02)  # a tenth, each half of it
    assert float(delta1) == pytest.approx(0.9, abs=0.04)
    assert (out / "camera1.png").is_file()
    capsys.readouterr()


def test_without_measurements_there_is_nothing_to_score(tmp_path, random_bundle, capsys):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    arguments = ["bag", str(tmp_path / "a.png"), str(tmp_path / "out"), "--score", "--model", str(random_bundle)]
    assert cli.main(arguments) == 1
    assert "no frame can be scored; expected depth images or points" in capsys.readouterr().err
