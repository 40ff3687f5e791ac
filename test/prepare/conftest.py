from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lotus2_ros.cli import main


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """The tiny released layout."""
    return shared / "golden" / "tiny-flux"


@pytest.fixture(scope="session")
def arguments() -> Callable[..., list[str]]:
    """released, output, further options -> the command line."""
    return lambda released, output, *more: [
        *("prepare", "--flux", str(released), "--lotus2", str(released), "--output", str(output), "--device", "cpu"),
        *more,
    ]


@pytest.fixture(scope="session")
def prepared(
    golden: Path, arguments: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Precision -> the tiny released model as a bundle."""
    folder = tmp_path_factory.mktemp("prepared")

    def prepare(precision: str) -> Path:
        if not (folder / precision).exists():
            assert main(arguments(golden, folder / precision, "--precision", precision)) == 0
        return folder / precision

    return prepare
