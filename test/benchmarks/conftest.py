"""The benches run, on a tiny model and without a GPU; what they say of time is not looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from forks import RENDER_IN_FORKS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(forks, monkeypatch) -> Callable[..., str]:
    """Runs a module of benchmarks/ with arguments, after lines of code if there are any; what it printed."""

    def run(module: str, *arguments: str, before: str = "") -> str:
        monkeypatch.chdir(ROOT)
        code = f"import sys\n{RENDER_IN_FORKS}\n{before}\nfrom {module} import main\nsys.exit(main())"
        result = forks.run("-c", code, *arguments, seconds=240)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run
