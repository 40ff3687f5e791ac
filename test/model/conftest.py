from __future__ import annotations

import pytest
import torch


@pytest.fixture
def image() -> torch.Tensor:
    """(1, 3, 24, 40) in [-1, 1]."""
    return torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def onednn_bfloat16() -> None:
    """oneDNN packs weights in bfloat16 for CPUs that multiply it or can emulate it well."""
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        pytest.skip("oneDNN has no bfloat16 on this CPU")
