"""The uncertainty head: what it says, and that it only adds to a model and its bundle."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from fused import write_fused
from safetensors.torch import load_file, save_file
from torch import Tensor

from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2.bundle import WEIGHTS, save_bundle
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.lotus2.uncertainty import USUAL, UncertaintyHead
from lotus2_ros.model.manifest import MANIFEST
from lotus2_ros.model.weights import CheckpointError

METADATA = {"name": "small", "licence": "none"}


@pytest.fixture
def picture(generator: torch.Generator) -> Tensor:
    return torch.rand(1, 3, 48, 64, generator=generator) * 2 - 1


@torch.inference_mode()
def test_an_untrained_head_says_the_same_everywhere() -> None:
    deviation = UncertaintyHead({"width": 4}, 3).deviation(torch.randn(2, 3, 8, 12))
    assert deviation.shape == (2, 1, 8, 12)
    torch.testing.assert_close(deviation, torch.full_like(deviation, math.sqrt(2) * math.exp(USUAL)))


@torch.inference_mode()
def test_it_says_it_where_it_sees_it(with_uncertainty: TrainableLotus2) -> None:
    latent = torch.zeros(1, 7, 32, 48)
    before = with_uncertainty.predict_uncertainty(latent)
    latent[..., -2:, -2:] = 1.0
    changed = (with_uncertainty.predict_uncertainty(latent) - before).abs()[0, 0]
    assert changed[-1, -1] > 0 and changed[:16].max() == 0 and changed[:, :24].max() == 0


def test_a_model_without_says_so(small: TrainableLotus2) -> None:
    assert not small.has_uncertainty
    with pytest.raises(ValueError, match="does not predict its uncertainty"):
        small.predict_uncertainty(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_both_kinds_of_bundle_bring_it_back(
    with_uncertainty: TrainableLotus2, with_prior: TrainableLotus2, picture: Tensor, tmp_path: Path, dtype: str
) -> None:
    core = with_uncertainty.core(with_uncertainty.encode(picture), "depth")
    assert torch.equal(core, with_prior.core(with_prior.encode(picture), "depth"))
    expected = with_uncertainty.predict_uncertainty(core)
    save_bundle(with_uncertainty, tmp_path / "trained", metadata=METADATA, dtype=torch.float32)
    write_fused(with_uncertainty, tmp_path / "fused")
    for name in ("trained", "fused"):
        loaded = load_model(tmp_path / name, device="cpu", dtype=dtype)
        found = loaded.predict_uncertainty(loaded.predict(loaded.encode(picture), ("depth",))["depth"])
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4 if dtype == "float32" else 0.05, atol=0)
        assert load_model(tmp_path / name, device="cpu", tasks=("normals",)).tasks == ("normals",)


def test_what_does_not_fit_is_refused(with_uncertainty: TrainableLotus2, tmp_path: Path) -> None:
    save_bundle(with_uncertainty, tmp_path, metadata=METADATA, dtype=torch.float32)
    whole, manifest = load_file(tmp_path / WEIGHTS), json.loads((tmp_path / MANIFEST).read_text())
    save_file({name: each for name, each in whole.items() if name != "uncertainty.layers.0.weight"}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"missing key uncertainty\.layers\.0\.weight"):
        load_model(tmp_path, device="cpu")
    save_file(whole, tmp_path / WEIGHTS)
    for described, message in (
        ({"width": 6}, r"expected uncertainty\.layers\.\S+ of shape \(6,"),
        ({"width": 0}, r"components\.uncertainty\.width"),
        (None, r"unexpected key uncertainty\."),
    ):
        manifest["components"]["uncertainty"] = described
        (tmp_path / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path, device="cpu")
