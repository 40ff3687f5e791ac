"""Our stand-ins against the distribution's cv_bridge and sensor_msgs_py, where those are installed and load."""

import numpy as np
import pytest
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from lotus2_ros.ros import bridge


@pytest.mark.parametrize("encoding", sorted(bridge.ENCODINGS))
def test_images_agree(encoding):
    try:
        theirs, ours = bridge.distribution_bridge()(), bridge._CvBridge()
    except (ImportError, AttributeError) as error:
        pytest.skip(f"{error}; no wheel: ros-<distro>-cv-bridge of a ROS distribution")
    code, channels, _ = bridge.ENCODINGS[encoding]
    shape = (6, 8) if channels == 1 else (6, 8, channels)
    pixels = (255 * np.random.default_rng(0).random(shape)).astype(code)
    message = theirs.cv2_to_imgmsg(pixels, encoding if channels != 2 else "8UC2")
    message.encoding = encoding
    own = ours.cv2_to_imgmsg(pixels, encoding)
    assert (own.step, own.height, own.width, own.data) == (message.step, message.height, message.width, message.data)
    wanted = "passthrough" if encoding[0].isdigit() else "rgb8"
    difference = ours.imgmsg_to_cv2(message, wanted).astype(float) - theirs.imgmsg_to_cv2(message, wanted)
    assert np.abs(difference).max() <= 1  # rounding of mono16


def test_clouds_agree():
    missing = "no wheel: ros-<distro>-sensor-msgs-py of a ROS distribution"
    theirs = pytest.importorskip("sensor_msgs_py.point_cloud2", reason=missing)
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate("xyz")]
    points = np.random.default_rng(0).random((7, 3), np.float32).reshape(-1).view([(n, "f4") for n in "xyz"])
    assert bridge._create_cloud(Header(), fields, points) == theirs.create_cloud(Header(), fields, points)


def test_what_is_used_is_one_of_the_two():
    """A distribution whose cv_bridge does not load must not leave the node without one."""
    assert bridge.CvBridge().imgmsg_to_cv2(bridge._CvBridge().cv2_to_imgmsg(np.zeros((2, 3), "u1"), "mono8")).shape == (
        2,
        3,
    )
