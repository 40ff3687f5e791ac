"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# The same examples every time, and no limit on the time of one: CI machines stall.
settings.register_profile("deterministic", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Recorded data and reference outputs that are not part of the project; beside it, or at LOTUS2_SHARED."""
    folder = Path(os.environ.get("LOTUS2_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared test data at {folder} (LOTUS2_SHARED names another place)")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
