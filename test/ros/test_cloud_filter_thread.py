"""Filtered clouds, which come at their own pace and hold up nothing."""

import numpy as np
import pytest
import torch
from lifecycle_msgs.msg import Transition
from lotus2_ros.msg import FrameReport
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, PointCloud2

from lotus2_ros.config import CloudConfig
from lotus2_ros.ros.cloud_filter_thread import by_voxel_size

pytestmark = pytest.mark.ros
HEIGHT, WIDTH = 36, 52
IMAGE = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
VOXEL = 0.25
METRIC = {"cloud.edge_threshold": 0.0, "cloud.filter_period": 0.0, "depth.sky": False, "sharp.enabled": False}


@pytest.fixture
def reference(random_bundle) -> torch.Tensor:
    """A depth that the random model's disparity of IMAGE fits."""
    from lotus2_ros.config import Config
    from lotus2_ros.inference.loading import load_estimator

    return 1 / (
        0.5 * load_estimator(Config().updated({"model.path": str(random_bundle)})).predict(IMAGE).disparity + 0.2
    )


def test_one_point_per_voxel_with_the_stamp_of_its_image(start, client, reference):
    start({**METRIC, "cloud.voxel_size": VOXEL, "cloud.outlier_neighbors": 0})
    client.subscribe(PointCloud2, "filtered/points", "points")
    client.subscribe(FrameReport, "report")
    client.warm_up(IMAGE, "filtered/points", "points", depth=reference)
    header = client.send_and_wait(IMAGE, 2, reference)
    client.until(
        lambda: any(c.header == header for c in client.received["filtered/points"]), "a filtered cloud of this image"
    )
    cloud = next(c for c in client.received["filtered/points"] if c.header == header)
    client.until(lambda: any(c.header == header for c in client.received["points"]), "the cloud it was made of")
    whole = next(c for c in client.received["points"] if c.header == header)
    assert cloud.height == 1 and cloud.width > 10 and [field.name for field in cloud.fields] == ["x", "y", "z", "rgb"]
    points, every = (np.frombuffer(c.data, np.float32).reshape(-1, 4)[:, :3] for c in (cloud, whole))
    voxels = {tuple(voxel) for voxel in np.floor(every[np.isfinite(every).all(-1)] / VOXEL).astype(int)}
    # Each point is a mean of its voxel's, so at most those on a border are counted for the next one.
    assert len(points) == pytest.approx(len(voxels), rel=0.05)
    assert len({tuple(voxel) for voxel in np.floor(points / VOXEL).astype(int)} & voxels) > 0.9 * len(voxels)
    by_sigma = SetParameters.Request(parameters=[Parameter("cloud.voxel_sigma", value=10.0).to_parameter_msg()])
    assert client.call(SetParameters, "set_parameters", by_sigma).results[0].successful
    checkered = 1 + 0.04 * (-1.0) ** torch.arange(HEIGHT * WIDTH).view(HEIGHT, WIDTH)
    header = client.send_and_wait(IMAGE, 3, checkered * reference)
    client.until(
        lambda: any(c.header == header for c in client.received["filtered/points"]), "a cloud of larger voxels"
    )
    larger = next(c for c in client.received["filtered/points"] if c.header == header)
    assert 0 < larger.width < 0.7 * cloud.width


def test_voxels_double_where_depth_is_less_sure():
    rows = torch.zeros(4, 5)
    rows[:, 4] = torch.tensor([0.01, 0.1, 0.11, 9.0])  # sigma
    found = by_voxel_size(rows, CloudConfig(voxel_size=0.2, voxel_sigma=2.0))
    assert [(round(size, 6), chosen.nonzero().flatten().tolist()) for size, chosen in found] == [
        (0.2, [0, 1]), (0.4, [2]), (3.2, [3])
    ]  # fmt: skip
    everywhere = [(0.2, 4)], [(0.2, 0)]
    for config, given, expected in zip((CloudConfig(voxel_size=0.2),) * 2, (rows, rows[:0]), everywhere, strict=True):
        assert [(size, int(chosen.sum())) for size, chosen in by_voxel_size(given, config)] == expected


BLOCKED = """
import sys, threading
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros import cloud_filter_process
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.ros.node import main
predict = Estimator.predict
frames, filtering = threading.Semaphore(0), threading.Event()
def predicting(self, *args, **kwargs):
    if filtering.is_set():
        frames.release()
    return predict(self, *args, **kwargs)
def filtered(self, cloud, *options):
    filtering.set()
    held_up = not all(frames.acquire(timeout=allowed(30)) for _ in range(6))
    print("held up" if held_up else "went on", flush=True)
    return cloud[:1]
Estimator.predict, cloud_filter_process.CloudFilterProcess.__call__ = predicting, filtered
sys.exit(main())
"""


def test_frames_go_on_while_a_cloud_is_filtered(start, client, reference):
    """The filter returns only when six more frames have been begun."""
    node = start({**METRIC, "cloud.filter_period": 3600.0, "model.warm_up": "[none]"}, command=("-c", BLOCKED))
    client.subscribe(PointCloud2, "filtered/points")
    client.subscribe(FrameReport, "report")
    stamps = iter(range(1, 1000))
    client.repeat(
        lambda: client.send_frame(IMAGE, next(stamps), reference), lambda: client.received["filtered/points"], "cloud"
    )
    assert "went on" in node.output() and "held up" not in node.output()
    client.send_and_wait(IMAGE, 1000, reference)
    assert len(client.received["filtered/points"]) == 1  # the second is due in an hour
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert client.change_state(transition)
    assert node.stop() == 0


FAILING = """
import sys
from lotus2_ros.ros import cloud_filter_process
from lotus2_ros.ros.node import main
def failing(self, *args):
    raise RuntimeError("no filter")
cloud_filter_process.CloudFilterProcess.__call__ = failing
sys.exit(main())
"""


def test_a_filter_that_fails_is_an_error_of_the_node(start, client, reference):
    node = start({**METRIC, "model.warm_up": "[none]", "node.retry": 0}, command=("-c", FAILING))
    client.subscribe(PointCloud2, "filtered/points")
    stamps = iter(range(1, 1000))
    client.repeat(
        lambda: client.send_frame(IMAGE, next(stamps), reference),
        lambda: "in error state: RuntimeError: no filter" in node.output(),
        "error state",
    )
    assert client.state() == "unconfigured"


def test_without_open3d_there_is_one_error_and_all_else(start, client, reference, monkeypatch, tmp_path):
    (tmp_path / "open3d.py").write_text("raise ImportError('no libGL')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    node = start({**METRIC, "model.warm_up": "[none]"})
    client.subscribe(PointCloud2, "filtered/points")
    client.subscribe(Image, "depth/image")
    client.subscribe(FrameReport, "report")
    said = "~/filtered/points is not published: open3d does not load"
    stamps = iter(range(100, 1000))
    client.repeat(lambda: client.send_frame(IMAGE, next(stamps), reference), lambda: said in node.output(), "the error")
    client.warm_up(IMAGE, "depth/image", depth=reference)
    client.send_and_wait(IMAGE, 2, reference)
    assert node.output().count(said) == 1 and not client.received["filtered/points"]
    assert node.stop() == 0
