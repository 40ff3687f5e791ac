"""The demo from its command line: real processes over real DDS, small frames, a random model."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from domains import claimed_domain

from lotus2_ros.demo.deadlines import allowed

pytest.importorskip("rclpy")

from lotus2_ros import cli
from lotus2_ros.bags import open_recording, read_messages
from lotus2_ros.bags.frames import header, image_message, typestore
from lotus2_ros.demo.results import (
    Results,
    candidate_stamps,
    cloud_tensors,
    error_where_known,
    float_image,
    save_shown_frame,
)
from lotus2_ros.demo.scene import REFERENCE_PERIOD, REFERENCE_STRIDE, TRUTH_TOPIC, write_scene_bag
from lotus2_ros.demo.session import Session, SessionError
from lotus2_ros.demo.table import latency_lines
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.geometry.cloud import organized_cloud
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import save_bundle
from lotus2_ros.ros.player import header_stamp_ns

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 48, 64


@pytest.fixture(autouse=True)
def own_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Apart from the programs of the tests before, which others still believe to be there for 20 s."""
    with claimed_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield


def demo(tmp_path: Path, *arguments: str) -> int:
    return cli.main(["demo", "--output", str(tmp_path / "out"), *arguments])


@pytest.fixture
def bundle(small: Lotus2, tmp_path: Path) -> Path:
    save_bundle(small, tmp_path / "bundle", metadata={"name": "small", "licence": "none"}, dtype=torch.float32)
    return tmp_path / "bundle"


def frames_folder(tmp_path: Path, count: int) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    return folder


@pytest.mark.timeout(240)
def test_a_folder_of_images_through_the_running_node(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = frames_folder(tmp_path, 2)
    status = demo(tmp_path, "--input", str(folder), "--model", str(bundle), "--rate", "0.5", "--fov", "70")
    printed = capsys.readouterr()
    assert status == 0, printed.err
    out = tmp_path / "out"
    assert "2 played, 2 received, 2 processed, 0 dropped, 0 rejected" in printed.out
    assert "none: 2 frames" in printed.out and "field of view 70" in printed.out
    assert cv2.imread(str(out / "preview.png")).shape[1] > 1000
    assert (out / "points.ply").read_bytes().startswith(b"ply\nformat binary")
    messages = list(read_messages(out / "output.mcap"))
    topics = [topic for topic, *_ in messages]
    for topic in ("/image", "/camera_info", "/perception/report", "/perception/relative/points"):
        assert topics.count(topic) >= 2, topic
    assert "/perception/sharp/disparity/image" in topics
    assert "/perception/depth/image" not in topics  # nothing metric without a reference
    (frame, _) = open_recording([out / "output.mcap"], topic="/image").frames()
    shown = frame.image.data.reshape(HEIGHT, WIDTH, 3)[..., ::-1]
    np.testing.assert_array_equal(shown, cv2.imread(str(folder / "0.png")))


@pytest.mark.timeout(240)
def test_a_node_that_cannot_start_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = frames_folder(tmp_path, 1)
    assert demo(tmp_path, "--input", str(folder), "--model", str(tmp_path / "no_model")) == 1
    error = capsys.readouterr().err
    assert "the recorder ended" in error and "unconfigured" in error
    assert "cannot configure" in error and "no_model" in error


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert demo(tmp_path, "--input", str(tmp_path / "nothing")) == 2
    assert capsys.readouterr().err == f"lotus2 demo: no such file or folder: {tmp_path / 'nothing'}\n"
    for rate in ("0", "nan", "inf"):
        assert demo(tmp_path, "--rate", rate) == 2
        assert capsys.readouterr().err.startswith("lotus2 demo: expected a positive rate")


@pytest.fixture
def write_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write a module that a session can start."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda name, code: (tmp_path / f"{name}.py").write_text(code)


STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print('{"event": "up"}')
time.sleep(600)
"""
FAILING = """
import time
try:
    print('{"event": "up"}', flush=True)
    while True:  # a signal just before a sleep does not end it
        time.sleep(0.1)
except KeyboardInterrupt:
    raise SystemExit('no space left') from None
"""
HANGING = """
import time
def wait_for_nothing():
    print('{"event": "up"}')
    time.sleep(600)
wait_for_nothing()
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_children_end_with_the_session_even_when_they_ignore_interrupts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_program: Callable
) -> None:
    monkeypatch.setattr("lotus2_ros.demo.session.STOP_TIMEOUT", 1.0)
    write_program("stubborn", STUBBORN)
    before = signal.getsignal(signal.SIGTERM)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="on purpose"), Session(tmp_path) as session:
        session.start("node", "stubborn")
        assert session.next_event(timeout=allowed(60)) == {"event": "up"}
        pid = session._children["node"].pid
        raise RuntimeError("on purpose")
    assert not is_running(pid)
    assert time.monotonic() - start < allowed(120)
    assert signal.getsignal(signal.SIGTERM) is before


KILLED = """
import os, signal, sys
from pathlib import Path
from lotus2_ros.demo.session import Session
session = Session(Path(sys.argv[1]))
session.start("child", "lasting")
print(session._children["child"].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path, write_program: Callable) -> None:
    """By SIGKILL, or by SIGHUP as its terminal is closed: nobody is left to end them. Also in the background of a shell
    without job control, whose programs ignore SIGINT."""
    write_program("lasting", "import time\ntime.sleep(600)\n")
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        parent = subprocess.run(command, stdout=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert parent.returncode == -signal.SIGKILL
    child = int(parent.stdout)
    end = time.monotonic() + allowed(10)
    while is_running(child) and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":  # nobody may wait for it
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_child_that_dies_is_named_with_its_last_words(tmp_path: Path, write_program: Callable) -> None:
    end = time.monotonic() + allowed(60)
    write_program("dying", "raise SystemExit('the reason')")
    with (
        pytest.raises(SessionError, match=r"(?s)the node ended with status 1.*the reason"),
        Session(tmp_path) as session,
    ):
        session.start("node", "dying")
        while time.monotonic() < end:
            session.next_event(timeout=0.1)


def test_a_child_that_fails_as_it_is_stopped_is_named(tmp_path: Path, write_program: Callable) -> None:
    """A recorder that cannot write the rest of its bag, say."""
    write_program("failing", FAILING)
    with Session(tmp_path) as session:
        session.start("recorder", "failing")
        assert session.next_event(timeout=allowed(60)) == {"event": "up"}
        with pytest.raises(SessionError, match=r"(?s)the recorder ended with status 1.*no space left"):
            session.stop("recorder")


def test_children_that_get_stuck_say_where(tmp_path: Path, write_program: Callable) -> None:
    write_program("hanging", HANGING)
    with Session(tmp_path) as session:
        session.start("player", "hanging")
        assert session.next_event(timeout=allowed(60)) == {"event": "up"}
        error = str(session.stuck("player", "did not finish in time"))
        assert error.startswith("the player did not finish in time") and "in wait_for_nothing" in error


def test_the_scene_bag_has_a_sparse_reference_and_exact_truth(tmp_path: Path) -> None:
    path = tmp_path / "room.mcap"
    assert write_scene_bag(path, frames=REFERENCE_PERIOD + 1, width=WIDTH, height=HEIGHT) == REFERENCE_PERIOD + 1
    frames = list(open_recording([path], topic="/image").frames())
    assert [frame.reference is not None for frame in frames] == [True, *[False] * (REFERENCE_PERIOD - 1), True]
    stamps = [frame.stamp_ns for frame in frames]
    assert np.diff(stamps).tolist() == [10**8] * REFERENCE_PERIOD
    reference = frames[0].reference.data.view(np.float32).reshape(HEIGHT, WIDTH)
    assert np.isfinite(reference).sum() == HEIGHT * WIDTH / REFERENCE_STRIDE**2
    truths = [raw for _, _, _, raw in read_messages(path, [TRUTH_TOPIC])]
    assert len(truths) == len(frames)


def test_depth_error() -> None:
    truth = torch.tensor([[1.0, 2.0, 4.0, torch.nan]])
    depth = torch.tensor([[1.1, 2.0, 6.0, 1.0]])
    error = error_where_known(depth, truth, is_metric=True)
    assert error.abs_rel == pytest.approx((0.1 + 0 + 0.5) / 3) and error.delta1 == pytest.approx(2 / 3)
    # Relative depth is right up to a factor; metric depth is not.
    relative, metric = (error_where_known(3 * truth, truth, is_metric) for is_metric in (False, True))
    assert (relative.abs_rel, relative.delta1) == (0.0, 1.0)
    assert (metric.abs_rel, metric.delta1) == (2.0, 0.0)


def test_images_and_clouds_of_the_node_are_read_back() -> None:
    values = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)
    assert torch.equal(float_image(image_message(values.numpy(), "32FC3", header(1, "eye"))), values)
    assert torch.equal(float_image(image_message(values[..., 0].numpy(), "32FC1", header(1, "eye"))), values[..., 0])
    from std_msgs.msg import Header

    from lotus2_ros.ros.clouds import tensor_to_cloud

    image = torch.randint(0, 255, (2, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    camera = Camera.from_fov(4, 2, 90.0)
    for normals in (None, values):
        rows = organized_cloud(
            values[..., 0], camera, image, normals, stride=1, min_depth=0.0, max_depth=math.inf, edge_threshold=0.0
        )
        points, colors = cloud_tensors(tensor_to_cloud(rows, Header()))
        assert torch.equal(points, camera.unproject(values[..., 0])) and torch.equal(colors, image)


def test_latency_lines_have_median_and_95th_percentile() -> None:
    reports = [SimpleNamespace(stage="core", latency_names=["encode"], latency_ms=[float(ms)]) for ms in range(1, 102)]
    lines = latency_lines(SimpleNamespace(reports=reports))  # type: ignore[arg-type]
    assert lines[1].split() == ["core", "encode", "51.0", "96.0"]


def report(stamp: int, stage: str) -> object:
    return SimpleNamespace(header=header(stamp, "eye"), stage=stage)


def test_the_picture_is_of_the_next_frame_where_one_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame in the middle of the sharpened ones lost its image on the way."""
    stamps = [1, 2, 3, 4]
    found = Results(
        "", reports=[report(stamp, "core") for stamp in stamps] + [report(stamp, "sharpener") for stamp in stamps[:3]]
    )
    assert candidate_stamps(found)[0] == 2 and sorted(candidate_stamps(found)) == stamps
    shown = []

    def show(path: Path, messages: dict) -> None:
        shown.append(messages["stamp"])
        if messages["stamp"] == 2:
            raise KeyError("/image")

    monkeypatch.setattr("lotus2_ros.demo.results.messages_of", lambda target, stamp: {"stamp": stamp})
    monkeypatch.setattr("lotus2_ros.demo.results.save_picture", show)
    monkeypatch.setattr("lotus2_ros.demo.results.save_cloud", lambda path, messages: None)
    save_shown_frame(tmp_path, tmp_path / "output.mcap", found)
    assert shown[0] == 2 and len(shown) == 2 and shown[1] in (1, 3)
    with pytest.raises(SessionError, match="none of the recorded frames can be shown"):
        save_shown_frame(tmp_path, tmp_path / "output.mcap", Results("", reports=[report(2, "core")]))


def test_the_stamp_of_a_serialized_message() -> None:
    stamp = 1_780_000_000 * 10**9 + 7
    item = image_message(np.zeros((2, 3), np.uint8), "mono8", header(stamp, "eye"))
    assert header_stamp_ns(bytes(typestore().serialize_cdr(item, item.__msgtype__))) == stamp


def test_a_folder_of_somebody_else_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "input.mcap").write_text("mine")
    assert demo(tmp_path, "--input", str(frames_folder(tmp_path, 1))) == 2
    assert "was not written by `lotus2 demo`" in capsys.readouterr().err
    assert (tmp_path / "out" / "input.mcap").read_text() == "mine"
    assert cli.main(["demo", "--input", str(tmp_path / "frames"), "--output", str(tmp_path)]) == 2
    assert "contains the input" in capsys.readouterr().err
