import os
import subprocess
import sys

import pytest

from lotus2_ros import cli
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile


def test_importing_the_package_and_its_help_loads_neither_torch_nor_rclpy():
    code = (
        "import sys, lotus2_ros.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'rclpy'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert all(command in result.stdout for command in cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: lotus2 {command}" in capsys.readouterr().out


def test_unknown_commands_and_bad_input_exit_with_2(capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        cli.main(["fly"])
    assert end.value.code == 2
    missing = str(tmp_path / "nowhere.png")
    assert cli.main(["infer", missing, "--output", str(tmp_path)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("lotus2 infer: ") and missing in line


@pytest.mark.parametrize("chosen", [None, "/etc/mine.xml"])
def test_the_node_refuses_invalid_parameters_and_takes_large_messages(capsys, monkeypatch, chosen):
    monkeypatch.setenv(FASTDDS_PROFILE, str(chosen))  # put back after the test in any case
    if chosen is None:
        monkeypatch.delenv(FASTDDS_PROFILE)
    assert cli.main(["node", "--ros-args", "-p", "model.device:=tpu"]) == 2
    assert "model.device: expected one of auto, cpu, cuda, got 'tpu'" in capsys.readouterr().err
    assert os.environ[FASTDDS_PROFILE] == (chosen or str(fastdds_profile()))
