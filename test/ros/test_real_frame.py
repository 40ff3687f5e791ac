"""A real RGB-D frame through the running node with the bundled model."""

import json

import cv2
import numpy as np
import pytest
import torch
from lotus2_ros.msg import FrameReport
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

pytestmark = pytest.mark.ros
TOPICS = {
    "depth/image": Image,
    "depth/camera_info": CameraInfo,
    "points": PointCloud2,
    "disparity/image": Image,
    "normals/image": Image,
    "normals/color": Image,
}
ABSREL = 0.20


def test_a_tum_frame_comes_back_metric(start, client, shared):
    folder = shared / "data" / "indoor_tum_rgbd_open3d"
    intrinsics = json.loads((folder / "intrinsics.json").read_text())
    image = torch.from_numpy(cv2.imread(str(folder / "rgb.png"))[..., ::-1].copy())
    truth = torch.from_numpy(cv2.imread(str(folder / "depth.png"), cv2.IMREAD_UNCHANGED).astype(np.float32)) / 5000
    k = [intrinsics["fx"], 0.0, intrinsics["cx"], 0.0, intrinsics["fy"], intrinsics["cy"], 0.0, 0.0, 1.0]
    start({"model.path": None, "sharp.enabled": False})
    for topic, kind in TOPICS.items():
        client.subscribe(kind, topic)
    client.repeat(
        lambda: client.send_frame(image, 7, truth, k=k), lambda: all(client.received[t] for t in TOPICS), "six topics"
    )
    got = {topic: messages[-1] for topic, messages in client.received.items()}
    for message in got.values():
        assert (message.header.stamp.sec, message.header.frame_id) == (7, "camera_optical")
        assert (message.height, message.width) == (480, 640)
    depth = np.frombuffer(got["depth/image"].data, np.float32).reshape(480, 640)
    measured = truth.numpy() > 0
    absrel = np.abs(depth - truth.numpy())[measured] / truth.numpy()[measured]
    assert np.isfinite(depth[measured]).mean() > 0.99
    assert np.nanmean(absrel) < ABSREL
    assert list(got["depth/camera_info"].k) == k
    cloud = np.frombuffer(got["points"].data, np.float32).reshape(480, 640, 4)
    # Upright and in front of the camera: the desk's top half is above the optical axis, y down.
    assert np.nanmin(cloud[..., 2]) > 0 and np.nanmedian(cloud[:100, :, 1]) < 0 < np.nanmedian(cloud[-100:, :, 1])


def test_the_bundled_model_sharpens_unless_told_not_to(start, client):
    image = torch.zeros(120, 160, 3, dtype=torch.uint8)
    start({"model.path": None})
    client.subscribe(Image, "disparity/image", "sharp/disparity/image")
    client.subscribe(FrameReport, "report")
    client.warm_up(image, "disparity/image")
    client.repeat(
        lambda: client.send_frame(image, 8), lambda: client.received["sharp/disparity/image"], "sharpened frame"
    )
