import os
import subprocess
import sys

import pytest

from lotus2_ros import cli
from lotus2_ros.config.errors import RunError
from lotus2_ros.config.installed import FASTDDS_PROFILE, fastdds_profile
from lotus2_ros.demo.deadlines import allowed


def test_importing_the_package_and_its_help_loads_neither_torch_nor_rclpy():
    code = (
        "import sys, lotus2_ros.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'rclpy'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=allowed(60))
    assert result.returncode == 0, result.stderr
    listed = {line.split()[0] for line in result.stdout.splitlines() if line.startswith("    ") and line.split()}
    assert set(cli.COMMANDS) - {"params"} <= listed and "params" not in listed


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


class FailingCommand:
    """A subcommand whose run raises."""

    def __init__(self, error):
        self.error = error

    def add_arguments(self, parser):
        parser.add_argument("--rate", type=float)

    def run(self, args):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("expected a folder,\n got a file"), 2, "lotus2 bag: expected a folder, got a file"),
        (FileNotFoundError("x.png: no such file"), 2, "lotus2 bag: x.png: no such file"),
        (KeyError("depth"), 1, "lotus2 bag: KeyError: 'depth'; run again with --debug to see the traceback"),
        (StopIteration(), 1, "lotus2 bag: StopIteration; run again with --debug to see the traceback"),
        (RunError("no frame gave geometry"), 1, "lotus2 bag: no frame gave geometry"),
        (MemoryError(), 1, "lotus2 bag: MemoryError; run again with --debug to see the traceback"),
        (ImportError("no rclpy"), 1, "lotus2 bag: ImportError: no rclpy; run again with --debug to see the traceback"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_is_one_line_and_debug_shows_its_traceback(monkeypatch, capsys, error, status, line):
    monkeypatch.setattr(cli, "import_module", lambda name: FailingCommand(error))
    assert cli.main(["bag"]) == status
    assert capsys.readouterr().err == line + "\n"
    assert cli.main(["bag", "--debug"]) == status
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "in run\n    raise self.error" in shown
    assert shown.splitlines()[-1] == line.removesuffix("; run again with --debug to see the traceback")


def test_an_interrupt_ends_with_130_and_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(cli, "import_module", lambda name: FailingCommand(KeyboardInterrupt()))
    assert cli.main(["bag", "--rate", "2"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_the_terminal_cannot_show_is_shown_as_bytes(encoding):
    code = (
        "import sys\n"
        "from lotus2_ros import cli\n"
        "cli.import_module = lambda name: sys.modules[__name__]\n"
        "add_arguments = lambda parser: None\n"
        "run = lambda args: print('caf\\udce9') or 0\n"
        "sys.exit(cli.main(['bag']))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=allowed(60))
    assert (result.returncode, result.stdout) == (0, b"caf\\udce9\n"), result.stderr


def test_output_that_nobody_reads_on_is_no_error():
    code = "import sys; from lotus2_ros import cli; sys.exit(cli.main(['doctor']))"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as output:
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, timeout=allowed(120))
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.parametrize("chosen", [None, "/etc/mine.xml"])
def test_the_node_refuses_invalid_parameters_and_takes_large_messages(chosen):
    # In a process of its own, which the node ends itself.
    code = (
        "import os\n"
        "from lotus2_ros import cli\n"
        "from lotus2_ros.ros import node\n"
        f"node.leave = lambda status: (print(os.environ[{FASTDDS_PROFILE!r}], flush=True), os._exit(status))\n"
        "cli.main(['node', '--ros-args', '-p', 'model.device:=tpu'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != FASTDDS_PROFILE}
    if chosen is not None:
        environment[FASTDDS_PROFILE] = chosen
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=allowed(60)
    )
    assert result.returncode == 2, result.stderr
    assert "model.device: expected one of auto, cpu, cuda, openvino:DEVICE, got 'tpu'" in result.stderr
    assert result.stdout.split()[-1] == (chosen or str(fastdds_profile()))  # Fast DDS 2 says what it cannot read


def test_prepare_says_something_before_its_slow_imports():
    code = "import sys, lotus2_ros.cli, lotus2_ros.cli.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=allowed(60)).returncode == 0


def test_help_says_what_each_family_takes(capsys):
    for command in ("prepare", "infer"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "float32, bfloat16, float8, int8, nf4 for Lotus-2; float32, bfloat16, float16 for Lotus-D and Lotus-G" in text
    )
    assert "--tasks auto|depth|normals" in text and "several separated by commas" in text
    assert "--samples SAMPLES" in text
