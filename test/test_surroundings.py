"""Shells that leave out what a process takes for granted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lotus2_ros.cli import main
from lotus2_ros.demo.deadlines import allowed

PROGRAM = """
import os, sys
from lotus2_ros.surroundings import check_surroundings
check_surroundings()
print("printed")
print("said", file=sys.stderr)
assert sys.stdin.read() == ""
sys.exit(os.open("/dev/null", os.O_RDONLY))
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_stream_that_was_closed(closed):
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, PROGRAM]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=allowed(60))
    assert result.returncode == 3, result
    assert result.stdout == (b"" if " >&-" in f" {closed}" else b"printed\n")


def test_a_current_folder_that_was_deleted_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["doctor"]) == 2
    assert (
        capsys.readouterr().err == "lotus2 doctor: expected a current folder, got one that was deleted; cd to another\n"
    )
