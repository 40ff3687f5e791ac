"""Where meters come from, in a running node with the bundled model: a rendered sequence, and what comes back of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from statistics import median

import cv2
import numpy as np
import pytest
import torch
from lotus2_ros.msg import FrameReport
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_messages import cloud_of, header_of
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from torch import Tensor

from lotus2_ros import scenes
from lotus2_ros.config import ScaleConfig
from lotus2_ros.evaluation.metrics import depth_error
from lotus2_ros.geometry.depth import disparity_to_depth
from lotus2_ros.ros.messages import tensor_to_image
from lotus2_ros.scale.reference import Reference, fit_to_reference
from lotus2_ros.scenes.render import Renderer
from lotus2_ros.scenes.worlds import build

pytestmark = pytest.mark.ros
WIDTH, HEIGHT, POINTS = 320, 240, 200
FRAMES, PERIOD = 9, 0.1  # seconds
METRIC = "depth/image", "depth/camera_info", "points"
RELATIVE = "relative/depth/image", "relative/points"
# A lidar of body axes (x forward, y left, z up), 0.3 m to the right of the camera, 0.2 m above and 0.1 m before it.
LIDAR = "0.3 -0.2 0.1 0.5 -0.5 0.5 0.5"


@dataclass(frozen=True)
class Answer:
    """What came back of one frame; depth is None where there is none of that kind."""

    view: scenes.View
    report: FrameReport
    disparity: Tensor
    depth: Tensor | None
    relative_depth: Tensor | None

    @property
    def error(self) -> float:
        return absrel(self.depth, self.view.depth)


class Player:
    """A camera of 10 Hz that waits for the answer to each frame. Its clock starts over for each test."""

    def __init__(self, client, node, views: Sequence[scenes.View]) -> None:
        self.client = client
        self.node = node
        self._zero = 10_000
        client.subscribe(Image, "disparity/image", METRIC[0], RELATIVE[0])
        client.subscribe(PointCloud2, METRIC[-1], RELATIVE[-1])
        client.subscribe(CameraInfo, METRIC[1])
        client.subscribe(FrameReport, "report")
        client.repeat(  # so that the node hears references
            lambda: [client.publish("reference/depth", Image()), client.publish("reference/points", PointCloud2())],
            lambda: all(f"[reference_{reason}]" in node.output() for reason in ("encoding", "fields")),
            "warnings",
        )
        for source, topics, depth in ("auto", METRIC, views[0].depth), ("none", RELATIVE, None):
            self.start(source=source)
            client.warm_up(views[0].image, "disparity/image", *topics, depth=depth)

    def start(self, **scale) -> None:
        """With default parameters but these, and a clock that starts over."""
        self.configure(**scale)
        self._zero -= 100  # back in time: nothing is left of what came before

    def configure(self, **scale) -> None:
        config = ScaleConfig(**scale)
        live = [item.name for item in fields(config) if item.metadata["live"]]
        parameters = [Parameter(f"scale.{name}", value=getattr(config, name)).to_parameter_msg() for name in live]
        request = SetParameters.Request(parameters=parameters)
        assert all(result.successful for result in self.client.call(SetParameters, "set_parameters", request).results)

    def header(self, seconds: float, frame: str = "camera_optical") -> Header:
        return header_of(self._zero + seconds, frame)

    def send_depth(self, depth: Tensor, seconds: float, encoding: str = "32FC1") -> None:
        self.client.publish("reference/depth", tensor_to_image(depth, encoding, self.header(seconds)))

    def send_points(self, points: Tensor, seconds: float) -> None:
        self.client.publish("reference/points", cloud_of(points, self.header(seconds, "lidar")))

    def send_odometry(self, robot: np.ndarray, seconds: float) -> None:
        """The pose (4, 4) of the robot, about its z axis turned only."""
        message = Odometry(header=self.header(seconds, "odom"), child_frame_id="base_link")
        pose = message.pose.pose
        pose.position.x, pose.position.y, pose.position.z = robot[:3, 3].tolist()
        half = math.atan2(robot[1, 0], robot[0, 0]) / 2
        pose.orientation.z, pose.orientation.w = math.sin(half), math.cos(half)
        self.client.publish("odometry", message)

    def play(self, view: scenes.View, seconds: float) -> Answer:
        """Send a frame and wait until all is there that comes of it: metric or relative, never both."""
        header = self.header(seconds)
        k = view.camera.K.double().flatten().tolist()
        self.client.publish("camera_info", CameraInfo(header=header, width=WIDTH, height=HEIGHT, k=k))
        self.client.publish("image", tensor_to_image(view.image, "rgb8", header))

        def newest(topic: str):
            return next((m for m in reversed(self.client.received[topic]) if m.header == header), None)

        self.client.until(lambda: newest("report") is not None, f"report of {seconds:g} s")
        report = newest("report")
        topics = "disparity/image", *(METRIC if report.metric else RELATIVE)
        self.client.until(lambda: all(newest(topic) for topic in topics), f"{topics} of {seconds:g} s")
        assert not any(newest(topic) for topic in (RELATIVE if report.metric else METRIC))
        pictures = [newest(topic) and picture(newest(topic)) for topic in ("disparity/image", METRIC[0], RELATIVE[0])]
        return Answer(view, report, *pictures)


def picture(message: Image) -> Tensor:
    return torch.from_numpy(np.frombuffer(message.data, np.float32).reshape(message.height, message.width).copy())


def absrel(depth: Tensor, truth: Tensor) -> float:
    assert torch.isfinite(depth).float().mean() > 0.98
    use = torch.isfinite(depth) & torch.isfinite(truth)
    return depth_error(depth[use], truth[use]).abs_rel


def offline_error(answer: Answer, reference: Tensor) -> float:
    """AbsRel of the fit to a reference that knows of this frame only."""
    scale, shift, _ = fit_to_reference(answer.disparity, Reference(reference))
    return absrel(disparity_to_depth(answer.disparity, scale, shift), answer.view.depth)


def summary(answers: Sequence[Answer]) -> set[tuple[bool, str]]:
    return {(answer.report.metric, answer.report.scale_source) for answer in answers}


def sparse(view: scenes.View, number: int) -> Tensor:
    """POINTS pixels of the truth, the rest NaN."""
    places = torch.randperm(HEIGHT * WIDTH, generator=torch.Generator().manual_seed(number)).reshape(HEIGHT, WIDTH)
    return torch.where(places < POINTS, view.depth, math.nan)


def camera_of(view: scenes.View) -> np.ndarray:
    """(4, 4), from the optical frame to the world."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = view.pose.rotation(), view.pose.position
    return pose


def robot_of(view: scenes.View) -> np.ndarray:
    """(4, 4) of a robot on the floor whose center is 0.3 m behind the camera; x forward, y left."""
    cos, sin = math.cos(view.pose.yaw), math.sin(view.pose.yaw)
    x, y, _ = view.pose.position - 0.3 * np.array([cos, sin, 0])
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def views() -> list[scenes.View]:
    """With the floor in sight."""
    return list(itertools.islice(scenes.sequence(7, 60, WIDTH, HEIGHT), FRAMES))


@pytest.fixture(scope="module")
def moving(views) -> list[scenes.View]:
    """A robot that drives a curve in the same room, 8 cm from frame to frame."""
    renderer, start = Renderer(build(7, "room")), views[0].pose
    poses = [start]
    for _ in range(FRAMES - 1):
        ahead = 0.08 * np.array([math.cos(poses[-1].yaw), math.sin(poses[-1].yaw), 0])
        poses.append(replace(start, position=poses[-1].position + ahead, yaw=poses[-1].yaw + 0.02))
    return [renderer.view(pose, views[0].camera, seed=7) for pose in poses]


@pytest.fixture(scope="module")
def lasting_player(lasting, views) -> Player:
    return Player(*lasting, views)


@pytest.fixture
def player(lasting_player) -> Iterator[Player]:
    said = len(lasting_player.node.output())
    yield lasting_player
    print(lasting_player.node.output()[said:])  # pytest shows it when the test failed


def test_sparse_depth_gives_meters_as_good_as_the_fit_alone(player, views):
    player.start()
    answers, alone = [], []
    for number, view in enumerate(views):
        player.send_depth(sparse(view, number), PERIOD * number)
        answers.append(player.play(view, PERIOD * number))
        alone.append(offline_error(answers[-1], sparse(view, number)))
    assert summary(answers) == {(True, "reference_depth")}
    assert {answer.report.scale_age for answer in answers} == {0.0}
    assert median(answer.error for answer in answers) <= 1.1 * median(alone)


def test_odometry_of_a_robot_that_drives(player, moving):
    """The camera looks down, 0.3 m before the robot's center and above it."""
    mount = np.linalg.inv(robot_of(moving[0])) @ camera_of(moving[0])
    vector = cv2.Rodrigues(mount[:3, :3])[0][:, 0]
    angle = np.linalg.norm(vector)
    quaternion = *(vector / angle * math.sin(angle / 2)), math.cos(angle / 2)
    player.start(source="odometry", camera_pose=" ".join(f"{number:.9f}" for number in (*mount[:3, 3], *quaternion)))
    answers, alone = [], []
    for number, view in enumerate(moving):
        player.send_odometry(robot_of(view), PERIOD * number)
        answers.append(player.play(view, PERIOD * number))
        alone.append(offline_error(answers[-1], sparse(view, number)))
    metric = [number for number, answer in enumerate(answers) if answer.report.metric]
    assert summary(answers[-4:]) == {(True, "odometry")} and metric[0] > 0
    assert median(answers[n].error for n in metric) <= 1.25 * median(alone[n] for n in metric)


def test_millimeters_of_half_the_size_at_a_third_of_the_rate(player, views):
    player.start(reference_slop=0.05)
    answers, alone = [], []
    for number, view in enumerate(views):
        half = view.depth[1::2, 1::2]
        if number % 3 == 0:
            player.send_depth((1000 * half).round().to(torch.uint16), PERIOD * number, "16UC1")
        answers.append(player.play(view, PERIOD * number))
        alone.append(offline_error(answers[-1], half))
    assert summary(answers) == {(True, "reference_depth")}
    ages = [PERIOD * (number % 3) for number in range(FRAMES)]
    assert [answer.report.scale_age for answer in answers] == pytest.approx(ages, abs=1e-6)
    assert median(answer.error for answer in answers) <= 1.1 * median(alone)


def test_points_of_a_lidar_beside_the_camera(player, views):
    player.start(points_transform=LIDAR)
    answers, alone = [], []
    for number, view in enumerate(views):
        depth = sparse(view, number)
        x, y, z = view.camera.unproject(depth)[torch.isfinite(depth)].T
        player.send_points(torch.stack((z - 0.1, 0.3 - x, -0.2 - y), dim=-1), PERIOD * number)
        answers.append(player.play(view, PERIOD * number))
        alone.append(offline_error(answers[-1], depth))
    assert summary(answers) == {(True, "reference_points")}
    assert {answer.report.scale_age for answer in answers} == {0.0}
    assert median(answer.error for answer in answers) <= 1.1 * median(alone)


def test_points_of_a_lidar_where_the_depth_camera_is_blind(player, views):
    player.start(points_transform="0 0 0 0 0 0 1")
    for number, view in enumerate(views[:2]):
        depth = sparse(view, number)
        player.send_points(view.camera.unproject(depth)[torch.isfinite(depth)], PERIOD * number)
        player.send_depth(
            torch.where(torch.arange(HEIGHT * WIDTH).view(HEIGHT, WIDTH) < 10, view.depth, 0), PERIOD * number
        )
        answer = player.play(view, PERIOD * number)
    assert answer.report.metric and answer.report.scale_source == "reference_points"
    assert answer.error <= 1.1 * offline_error(answer, depth)


def test_a_late_reference_is_used_for_the_next_frame(player, views):
    player.start(reference_slop=0.02)
    assert not any(player.play(view, PERIOD * number).report.metric for number, view in enumerate(views[:2]))
    player.send_depth(views[1].depth, PERIOD)
    answer = player.play(views[2], 2 * PERIOD)
    assert answer.report.metric and answer.report.scale_age == pytest.approx(PERIOD, abs=1e-6)
    assert answer.error <= 1.1 * offline_error(answer, views[2].depth)


def test_the_height_of_the_camera_gives_meters(player, views):
    pose = views[0].pose
    player.start(camera_height=float(pose.position[2]), camera_pitch=-math.degrees(pose.pitch))
    answers = [player.play(view, PERIOD * number) for number, view in enumerate(views)]
    assert summary(answers) == {(True, "camera_height")}
    # The bundled model's normals and disparity are coarse; with twice the height it would be 1.
    assert median(answer.error for answer in answers) < 0.3


def test_without_a_source_depth_is_relative(player, views):
    player.start()
    answers = [player.play(view, PERIOD * number) for number, view in enumerate(views[:3])]
    assert summary(answers) == {(False, "normals")}
    for answer in answers:
        factor = (answer.view.depth / answer.relative_depth).median()
        assert math.isnan(answer.report.scale_age) and absrel(factor * answer.relative_depth, answer.view.depth) < 0.4


def test_meters_end_with_the_reference_and_come_back_with_it(player, views):
    player.start(max_age=0.35)
    player.send_depth(views[0].depth, 0.0)
    answers = [player.play(view, PERIOD * number) for number, view in enumerate(views[:6])]
    assert [answer.report.metric for answer in answers] == [True] * 4 + [False] * 2
    assert answers[4].report.scale_note == "the last fit of reference_depth is 0.4 s old"
    player.send_depth(views[6].depth, 6 * PERIOD)
    assert player.play(views[6], 6 * PERIOD).report.metric
    player.configure(source="none")
    assert not player.play(views[7], 7 * PERIOD).report.metric


def test_after_a_cut_the_old_fit_is_not_used(player, views):
    elsewhere = scenes.view(701, WIDTH, HEIGHT, "corridor")
    player.start()
    for number, view in enumerate(views[:3]):
        player.send_depth(view.depth, PERIOD * number)
        player.play(view, PERIOD * number)
    assert player.play(views[3], 3 * PERIOD).report.metric
    assert not player.play(elsewhere, 4 * PERIOD).report.metric
    player.send_depth(elsewhere.depth, 5 * PERIOD)
    answer = player.play(elsewhere, 5 * PERIOD)
    assert answer.error <= 1.1 * offline_error(answer, elsewhere.depth)
