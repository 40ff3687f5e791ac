"""A node with a model of another family: what it publishes more, and what it leaves silent."""

import math
import shutil

import numpy as np
import pytest
import torch
from lotus2_ros.msg import FrameReport
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros
IMAGE = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("family", "mirror", "uncertain"), [("lotus-d", False, False), ("lotus-d", True, True), ("lotus-g", False, True)]
)
def test_uncertainty_is_published_where_there_are_several_answers_and_nothing_is_sharpened(
    start, client, shared, tmp_path, family, mirror, uncertain
):
    folder = tmp_path / f"lotus-depth-{family[-1]}-v2-disparity"
    shutil.copytree(shared / "golden" / f"tiny-{family}", folder)
    start(
        {
            "model.path": str(folder),
            "model.samples": 3,
            "model.mirror": mirror,
            "model.process_resolution": 64,
            "model.warm_up": "['none']",
        }
    )
    client.subscribe(Image, "disparity/image", "uncertainty/image", "sharp/disparity/image")
    client.subscribe(FrameReport, "report")
    client.warm_up(IMAGE, "disparity/image", *(["uncertainty/image"] if uncertain else []))
    for stamp in (2, 3):
        client.send_and_wait(IMAGE, stamp)
    reports = client.received["report"]
    assert {report.stage for report in reports} == {"core"}
    assert all(report.sharpener_note == f"{family} has no detail sharpener" for report in reports)
    assert not client.received["sharp/disparity/image"]
    if not uncertain:
        assert not client.received["uncertainty/image"] and math.isnan(reports[0].uncertainty)
        return
    client.until(lambda: len(client.received["uncertainty/image"]) == 2, "two of uncertainty")
    first, second = client.received["uncertainty/image"]
    assert first.encoding == "32FC1" and (first.height, first.width) == (48, 64)
    spread = np.frombuffer(first.data, np.float32)
    assert spread.min() >= 0 and reports[0].uncertainty == pytest.approx(float(spread.mean()), rel=1e-4)
    assert first.data == second.data  # the same image, the same noise
