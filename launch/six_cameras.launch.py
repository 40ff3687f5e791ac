"""An example: six cameras around a car and a lidar on its roof, one node and one model.

The names are those of nuScenes. The lidar gives every camera meters; where the cameras are comes from /tf.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription

CAMERAS = "CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"


def generate_launch_description() -> LaunchDescription:
    path = str(Path(get_package_share_directory("lotus2_ros"), "launch", "perception.launch.py"))
    given = {
        "cameras": ",".join(CAMERAS),
        "image": "/{camera}/image_rect",
        "image_transport": "compressed",
        "camera_info": "/{camera}/camera_info",
        "reference_points": "/LIDAR_TOP",
    }
    return LaunchDescription([IncludeLaunchDescription(path, launch_arguments=given.items())])
