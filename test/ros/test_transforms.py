"""Transforms of points: by /tf, where a ROS distribution is installed."""

import pytest
import torch
from std_msgs.msg import Header

from lotus2_ros.ros.messages import MessageError
from lotus2_ros.ros.transforms import BY_TF, Transforms

POINTS = torch.tensor([[4.0, 0.8, -0.5]])


def test_points_of_the_cameras_frame_stay_as_they_are():
    for frames in (("camera", "camera"), ("", "camera"), ("lidar", "")):
        assert Transforms(None).to_camera(POINTS, Header(frame_id=frames[0]), frames[1], BY_TF) is POINTS


def test_a_parameter_comes_before_everything_else():
    moved = Transforms(None).to_camera(POINTS, Header(frame_id="camera"), "camera", "1 2 3 0 0 0 1")
    torch.testing.assert_close(moved, torch.tensor([[5.0, 2.8, 2.5]]))


@pytest.mark.ros
def test_tf_takes_points_to_the_camera(client):
    """A lidar of body axes, half a meter above the camera."""
    tf2_ros = pytest.importorskip("tf2_ros", reason="no wheel: ros-<distro>-tf2-ros-py of a ROS distribution")
    from geometry_msgs.msg import TransformStamped

    transform = TransformStamped(header=Header(frame_id="camera"), child_frame_id="lidar")
    transform.transform.translation.y = -0.5
    turn = transform.transform.rotation
    turn.x, turn.y, turn.z, turn.w = 0.5, -0.5, 0.5, 0.5
    tf2_ros.StaticTransformBroadcaster(client.node).sendTransform(transform)
    transforms = Transforms(client.node)
    transforms.listen()
    found = []

    def is_known() -> bool:
        try:
            found.append(transforms.to_camera(POINTS, Header(frame_id="lidar"), "camera", BY_TF))
        except MessageError:
            return False
        return True

    client.until(is_known, "transform")
    transforms.close()
    torch.testing.assert_close(found[0], torch.tensor([[-0.8, 0.0, 4.0]]))
