"""The benches run, on a tiny model and without a GPU; what they say of time is not looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(forks, monkeypatch) -> Callable[..., str]:
    """Runs a module of benchmarks/ with arguments; what it printed."""

    def run(*arguments: str, **environment: str) -> str:
        monkeypatch.chdir(ROOT)
        result = forks.run("-m", *arguments, environment=environment, seconds=240)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run
