"""An example: two cameras, each with a perception node and a namespace of its own.

Arguments of an included launch file stay set after the include. Without the scoped groups, ``model`` or
``image_transport`` of the first camera would also reach the second.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription

CAMERAS = {
    "front": {"image": "/front/image_raw", "camera_info": "/front/camera_info", "image_transport": "compressed"},
    "rear": {"image": "/rear/image_raw", "camera_info": "/rear/camera_info"},
}


def generate_launch_description() -> LaunchDescription:
    path = str(Path(get_package_share_directory("lotus2_ros"), "launch", "perception.launch.py"))
    groups = []
    for name, arguments in CAMERAS.items():
        given = {"namespace": name, **arguments}.items()
        groups.append(GroupAction([IncludeLaunchDescription(path, launch_arguments=given)], scoped=True))
    return LaunchDescription(groups)
