"""An example for Nav2: the perception node, the camera's place on the robot, and a laser scan from its results.

The scan comes from the depth image (scan:=depth, depthimage_to_laserscan, for a level camera) or from the cloud
(scan:=points, pointcloud_to_laserscan, for a tilted one). Both are packages of the ROS distribution. Nav2 itself is
started as usual, with parameters like those in config/nav2_costmap.yaml.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

ARGUMENTS = {
    "image": ("/camera/image_raw", "topic of the images"),
    "camera_info": ("/camera/camera_info", "topic of the camera's intrinsics"),
    "reference_depth": ("", "topic of a metric depth image, if there is one"),
    "reference_points": ("", "topic of a cloud in meters of a lidar or of SLAM, if there is one"),
    "odometry": ("", "topic of the robot's odometry: meters without a depth sensor, while the camera moves"),
    "params_file": ("", "YAML file of the node's parameters; by default nav2_perception.yaml"),
    "base_frame": ("base_link", "frame of the robot"),
    "camera_frame": ("camera_link", "frame of the camera with x forward, y left and z up"),
    "optical_frame": ("camera_optical_frame", "frame_id of the images: x right, y down, z forward"),
    "camera_pose": ("0.2 0 0.4 0 0.2 0", "x y z roll pitch yaw of the camera on the robot; a pitch > 0 looks down"),
    "scan": ("points", "depth, points or none: what the laser scan is made of"),
}
# Of the optical frame in a frame with x forward.
TO_OPTICAL = ("-1.5707963", "0", "-1.5707963")
MAX_RANGE, MIN_HEIGHT, MAX_HEIGHT = 4.0, 0.1, 1.5  # meters, above the robot's base


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[Action]:
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    share = Path(get_package_share_directory("lotus2_ros"))
    names = ("image", "camera_info", "reference_depth", "reference_points", "odometry")
    arguments = {name: given[name] for name in names if given[name]}
    arguments["params_file"] = given["params_file"] or str(share / "config" / "nav2_perception.yaml")
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "perception.launch.py")),
        launch_arguments=list(arguments.items()),
    )
    pose = given["camera_pose"].split()
    if len(pose) != 6:
        raise ValueError(f"camera_pose: expected 6 numbers, x y z roll pitch yaw, got {given['camera_pose']!r}")
    return [
        GroupAction([perception], scoped=True),
        transform(given["base_frame"], given["camera_frame"], tuple(pose[:3]), tuple(pose[3:])),
        transform(given["camera_frame"], given["optical_frame"], ("0", "0", "0"), TO_OPTICAL),
        *scan_nodes(given["scan"], given["base_frame"], given["camera_frame"]),
    ]


def transform(parent: str, child: str, place: tuple[str, ...], turn: tuple[str, ...]) -> Node:
    """A static transform; ``turn``: roll, pitch and yaw in radians."""
    named = zip(("--x", "--y", "--z", "--roll", "--pitch", "--yaw"), (*place, *turn), strict=True)
    words = [word for pair in named for word in pair]
    return Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        arguments=[*words, "--frame-id", parent, "--child-frame-id", child],
    )


def scan_nodes(source: str, base_frame: str, camera_frame: str) -> list[Node]:
    if source == "depth":
        return [
            Node(
                package="depthimage_to_laserscan",
                executable="depthimage_to_laserscan_node",
                parameters=[{"output_frame": camera_frame, "range_max": MAX_RANGE, "scan_height": 20}],
                remappings=[
                    ("depth", "/perception/depth/image"),
                    ("depth_camera_info", "/perception/depth/camera_info"),
                    ("scan", "/perception/scan"),
                ],
            )
        ]
    if source == "points":
        return [
            Node(
                package="pointcloud_to_laserscan",
                executable="pointcloud_to_laserscan_node",
                parameters=[
                    {
                        "target_frame": base_frame,
                        "min_height": MIN_HEIGHT,
                        "max_height": MAX_HEIGHT,
                        "range_max": MAX_RANGE,
                        "angle_min": -0.8,
                        "angle_max": 0.8,
                        "use_inf": True,
                    }
                ],
                remappings=[("cloud_in", "/perception/points"), ("scan", "/perception/scan")],
            )
        ]
    if source == "none":
        return []
    raise ValueError(f"expected scan:=depth, points or none, got {source}")
