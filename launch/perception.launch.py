"""Starts the perception node, and on demand RViz and a playing bag.

With `cameras` the topics hold `{camera}`, which stands for each name: image:=/{camera}/image_raw. Only the points of
a lidar and the odometry of a robot, which all cameras share, may do without. An example is six_cameras.launch.py.

No argument has a default of its own. An argument that is not given is not passed on, and the node's default applies
(lotus2_ros/config/parameters.py). To include this file more than once, see two_cameras.launch.py.
"""

from __future__ import annotations

import os
from tempfile import NamedTemporaryFile

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch_ros.actions import Node

from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.config.rviz import rviz_layout

ARGUMENTS = {
    "model": "folder of the model: a bundle, or the released layout",
    "cameras": "names of several cameras that share the model, with commas: front,left,right",
    "namespace": "namespace of the node, for instance the name of the camera",
    "image": "topic of the images, without the transport: /camera/image_raw, or /{camera}/image_raw",
    "image_transport": "raw or compressed; compressed listens to <image>/compressed",
    "camera_info": "topic of the camera's intrinsics",
    "reference_depth": "topic of a metric depth image to fit the scale to",
    "reference_points": "topic of a point cloud in meters, from a lidar or SLAM, to fit the scale to",
    "odometry": "topic of the robot's odometry, nav_msgs/Odometry, for meters from the camera's motion",
    "params_file": "YAML file of parameters, like config/perception.yaml",
    "use_sim_time": "true: take the time from /clock, of a playing bag or a simulator",
    "respawn": "true: start the node again whenever it ends, also after a failure without retries left",
    "rviz": "true: start RViz with config/perception.rviz, for these topics and cameras",
    "bag": "folder or file of a recorded bag to play, with its clock; use it with use_sim_time:=true",
}
TOPICS = {
    "image": "image",
    "camera_info": "camera_info",
    "reference_depth": "reference/depth",
    "reference_points": "reference/points",
    "odometry": "odometry",
}
SHARED = "reference/points", "odometry"
PARAMETERS = {"model": "model.path", "image_transport": "input.image_transport"}
RESPAWN_DELAY = 2.0  # seconds


def generate_launch_description() -> LaunchDescription:
    arguments = [DeclareLaunchArgument(name, default_value="", description=text) for name, text in ARGUMENTS.items()]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[Action]:
    given = {name: text for name in ARGUMENTS if (text := context.launch_configurations[name])}
    # Without this profile large messages are lost between processes; one of the user's own comes first.
    environment = {FASTDDS_PROFILE: os.environ.get(FASTDDS_PROFILE, str(fastdds_profile()))}
    clock = {"use_sim_time": boolean("use_sim_time", given)} if "use_sim_time" in given else {}
    namespace = {"namespace": given["namespace"]} if "namespace" in given else {}

    respawn = boolean("respawn", given)
    cameras = [name.strip() for name in given.get("cameras", "").split(",") if name.strip()]
    values = {
        **clock,
        **{name: given[argument] for argument, name in PARAMETERS.items() if argument in given},
        **({"cameras": cameras} if cameras else {}),
        **({"node.exit_on_failure": True} if respawn else {}),
    }
    parameters = [given["params_file"]] if "params_file" in given else []
    actions: list[Action] = [
        Node(
            package="lotus2_ros",
            executable="perception",
            output="screen",
            parameters=[*parameters, *([values] if values else [])],
            remappings=remappings(given, cameras),
            additional_env=environment,
            respawn=respawn,
            respawn_delay=RESPAWN_DELAY,
            **namespace,
        )
    ]
    if boolean("rviz", given):
        rviz = Node(
            package="rviz2",
            executable="rviz2",
            arguments=["--display-config", layout_file(given, cameras)],
            parameters=[clock] if clock else [],
            additional_env=environment,
            **namespace,
        )
        actions.append(rviz)
    if "bag" in given:
        play = ["ros2", "bag", "play", "--clock", "100", given["bag"]]
        actions.append(ExecuteProcess(cmd=play, output="screen", additional_env=environment))
    return actions


def layout_file(given: dict[str, str], cameras: list[str]) -> str:
    """RViz's layout for this node, in a file that stays."""
    image = given.get("image", "{camera}/image" if cameras else "image")
    if given.get("image_transport") == "compressed":
        image += "/compressed"
    with NamedTemporaryFile("w", prefix="perception_", suffix=".rviz", delete=False) as file:
        file.write(rviz_layout(image, given.get("namespace", ""), cameras))
    return file.name


def remappings(given: dict[str, str], cameras: list[str]) -> list[tuple[str, str]]:
    """Input topics by the arguments; those of each camera if there are several."""
    named = [(topic, given[argument]) for argument, topic in TOPICS.items() if argument in given]
    if not cameras:
        return named
    alone = [text for topic, text in named if topic not in SHARED and "{camera}" not in text]
    if alone:
        raise ValueError(f"expected {{camera}} in the topics of several cameras, got {alone[0]}")
    return [(f"{name}/{topic}", text.replace("{camera}", name)) for name in cameras for topic, text in named]


def boolean(name: str, given: dict[str, str]) -> bool:
    text = given.get(name, "false").lower()
    if text not in ("true", "false"):
        raise ValueError(f"{name}: expected true or false, got {given[name]!r}")
    return text == "true"
