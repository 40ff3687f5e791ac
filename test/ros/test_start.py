"""The start of the node's process: what it costs, and what it says where ROS does not start."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from rclpy.context import Context

from lotus2_ros.ros.node import frozen_objects
from lotus2_ros.ros.start import RosStartError, start_ros


def test_frozen_objects_are_left_to_no_collection():
    gc.collect()
    before = gc.get_freeze_count()
    try:
        with frozen_objects():
            assert not gc.isenabled()
            made = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() - before >= len(made)
        assert not any(item is made for item in gc.get_objects())
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-x", "foo"], "UnknownROSArgsError: ['-x', 'foo']"),
        (["--params-file", "/none.yaml"], "Couldn't parse params file: '--params-file /none.yaml'"),
        (["-r", "image:=bad//name"], "Couldn't parse remap rule: '-r image:=bad//name'"),
        (["-r", "__node:=bad-name"], "Couldn't parse remap rule"),
        (["--log-level", "loud"], "Couldn't parse log level: '--log-level loud'"),
    ],
)
def test_wrong_arguments_of_ros_are_one_error(arguments: list[str], text: str):
    with pytest.raises(RosStartError) as error:
        start_ros(["--ros-args", *arguments], context=Context())
    assert text in str(error.value)
    assert "\n" not in str(error.value) and ".c:" not in str(error.value)


@pytest.mark.parametrize(
    ("domain", "text"), [("abc", "ROS_DOMAIN_ID is not an integral number"), ("233", "ROS_DOMAIN_ID of at most 232")]
)
def test_a_domain_that_does_not_exist_is_one_error(monkeypatch: pytest.MonkeyPatch, domain: str, text: str):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    context = Context()
    with pytest.raises(RosStartError, match=text):
        start_ros(context=context)
    assert not context.ok()


def test_the_node_ends_with_one_line_where_its_log_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "none" / "of"))
    (tmp_path / "none").write_text("a file")
    ended = subprocess.run([sys.executable, "-m", "lotus2_ros.ros.node"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("perception: ROS does not start: ")
    assert ended.stderr.endswith("; set ROS_LOG_DIR to a folder that can be written\n")
    assert "Traceback" not in ended.stderr
