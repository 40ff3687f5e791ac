"""Scores by held-out measurements: what is held out, what is dropped, and the report."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import StoragePlugin, Writer

pytest.importorskip("rclpy")

from lotus2_ros import cli
from lotus2_ros.bags.frames import camera_info_message, header, image_message, typestore
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference import loading
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.loading import load
from lotus2_ros.scale.metric_model import MetricModel
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


def record(path: Path, estimator: Estimator, cameras: dict[str, tuple[float, int]]) -> Path:
    """Three frames of each camera, with the depth of the model, a share of it wrong by a factor of two.

    ``cameras``: that share, and how many of the frames have depth, by namespace.
    """
    camera = Camera.from_fov(64, 48, 60)
    rng = np.random.default_rng(0)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for index, (namespace, (share, measured)) in product(range(3), cameras.items()):
            head = header((index + 1) * 10**9, "eye")
            pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            depth = 1 / (0.4 * estimator.predict(pixels).disparity + 0.1)
            messages = [
                ("/camera_info", camera_info_message(camera, head)),
                ("/image", image_message(pixels, "rgb8", head)),
            ]
            if index < measured:
                wrong = torch.from_numpy(rng.random((48, 64)) < share)
                messages.append(
                    ("/reference/depth", image_message(torch.where(wrong, 2 * depth, depth).numpy(), "32FC1", head))
                )
            for name, item in messages:
                topic = namespace + name
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, item.__msgtype__, typestore=typestore())
                raw = typestore().serialize_cdr(item, item.__msgtype__)
                writer.write(connections[topic], (index + 1) * 10**9, raw)
    return path


def rows(report: Path) -> dict[str, list[str]]:
    """The cells of each camera's row, by the name of its image topic."""
    lines = [line.split(" | ") for line in report.read_text().splitlines() if "/image |" in line]
    return {cells[0].rpartition(" ")[2]: [cell.strip(" |") for cell in cells[1:]] for cells in lines}


def test_a_recording_is_scored_by_its_own_depth(tmp_path, random_bundle, capsys):
    source = record(tmp_path / "in", load(random_bundle), {"": (0.1, 2)})
    out = tmp_path / "report"
    assert cli.main(["bag", str(source), str(out), "--score", "--model", str(random_bundle)]) == 0
    ((abs_rel, delta1, coverage, scored, failed, *_),) = rows(out / "report.md").values()
    assert (scored, failed, coverage) == ("2 of 3", "0", "100 %")
    assert float(abs_rel) == pytest.approx(0.05, abs=0.02)  # a tenth, each half of it
    assert float(delta1) == pytest.approx(0.9, abs=0.04)
    assert (out / "camera1.png").is_file()
    capsys.readouterr()


def test_each_camera_is_scored_by_its_own_depth_and_one_without_any_stops_no_other(tmp_path, random_bundle, capsys):
    cameras = {"/front": (0.0, 3), "/blind": (0.0, 0), "/rear": (0.3, 3)}
    source, out = record(tmp_path / "in", load(random_bundle), cameras), tmp_path / "report"
    topics = [word for name in cameras for word in ("--topic", f"{name}/image")]
    assert cli.main(["bag", str(source), str(out), *topics, "--score", "--model", str(random_bundle)]) == 1
    printed = capsys.readouterr()
    assert "/blind/image: no frame can be scored" in printed.err and "/front/image" in printed.out
    found = rows(out / "report.md")
    assert list(found) == ["/front/image", "/rear/image"]
    assert [cells[3] for cells in found.values()] == ["3 of 3", "3 of 3"]
    assert float(found["/front/image"][0]) < 0.01 < 0.1 < float(found["/rear/image"][0])
    assert {path.name for path in out.glob("*.png")} == {"camera1.png", "camera2.png"}


def test_a_scale_from_elsewhere_is_scored_by_all_that_was_measured(tmp_path, random_bundle, capsys, monkeypatch):
    source, out = record(tmp_path / "in", load(random_bundle), {"": (0.0, 3)}), tmp_path / "report"

    def halved(self, image, camera):
        return 0.5 / (0.4 * load(random_bundle).predict(image).disparity + 0.1)

    monkeypatch.setattr(MetricModel, "depth", halved)
    monkeypatch.setattr(loading, "configured_metric_model", lambda config, device: object.__new__(MetricModel))
    options = ["-p", "scale.source:=metric_model", "-p", "scale.metric_model:=folder"]
    assert cli.main(["bag", str(source), str(out), "--score", "--model", str(random_bundle), *options]) == 0
    ((abs_rel, *_),) = rows(out / "report.md").values()
    assert float(abs_rel) == pytest.approx(0.5, abs=0.02)
    assert "metric_model 3 frames" in (out / "report.md").read_text()
    capsys.readouterr()


def test_without_measurements_there_is_nothing_to_score(tmp_path, random_bundle, capsys):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    arguments = ["bag", str(tmp_path / "a.png"), str(tmp_path / "out"), "--score", "--model", str(random_bundle)]
    assert cli.main(arguments) == 1
    assert "no frame can be scored; expected depth images or points" in capsys.readouterr().err
