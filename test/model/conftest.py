from __future__ import annotations

import pytest
import torch


@pytest.fixture
def image() -> torch.Tensor:
    """(1, 3, 24, 40) in [-1, 1]."""
    return torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
