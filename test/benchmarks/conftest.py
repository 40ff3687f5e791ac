"""The benches run, on a tiny model and without a GPU; what they say of time is not looked at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lotus2_ros.demo.deadlines import allowed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bench() -> Callable[..., str]:
    """Runs a module of benchmarks/ with arguments; what it printed."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=allowed(240))
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run
