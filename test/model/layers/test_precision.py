"""What a model computes in, and what eight and four bits cost the bundled one in the measures that users look at."""

from __future__ import annotations

import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.config import Config
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.measure import measure
from lotus2_ros.evaluation.summary import flat
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.layers.precision import multiplies_bfloat16, resolve_dtype
from lotus2_ros.model.load import BUNDLED
from lotus2_ros.model.lotus.family import LotusFamily
from lotus2_ros.model.lotus2.bundle import load_bundle
from lotus2_ros.model.lotus2.family import Lotus2Family
from lotus2_ros.model.lotus2.fuse import fuse

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx2": True, "avx512_bf16": False}, False),
    ],
)
def test_which_cpu_has_bfloat16(monkeypatch: pytest.MonkeyPatch, has: dict[str, bool], expected: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert multiplies_bfloat16(CPU) is expected


def test_a_torch_that_does_not_say_what_a_cpu_can_counts_on_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not multiplies_bfloat16(CPU)


@pytest.mark.parametrize(
    ("capability", "family", "expected"),
    [
        ((7, 5), Lotus2Family, torch.float32),
        ((7, 5), LotusFamily, torch.float16),
        ((8, 0), Lotus2Family, torch.bfloat16),
        ((9, 0), LotusFamily, torch.bfloat16),
    ],
)
def test_a_gpu_without_bfloat16_computes_in_what_the_family_bears(monkeypatch, capability, family, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    cuda = torch.device("cuda")
    assert resolve_dtype("auto", cuda, family.without_bfloat16) is expected
    assert resolve_dtype("bfloat16", cuda, family.without_bfloat16) is torch.bfloat16
    assert resolve_dtype("auto", CPU, family.without_bfloat16) is torch.float32


def scores(precision: str) -> dict[str, torch.Tensor]:
    """On one unseen view of every kind; off a GPU float8 is rounded as there and multiplied in float32."""
    model = fuse(
        load_bundle(BUNDLED, device=CPU, dtype=torch.float32).source(), precision, device=CPU, dtype=torch.float32
    )
    estimator = Estimator(model, Config())
    views = [scenes.view(200, 160, 120, kind) for kind in scenes.KINDS]
    rows = [flat(measure(estimator, Sample("", v.image, v.depth, v.normals), 2)) for v in views]
    return {path: torch.tensor([row[path] for row in rows]) for path in rows[0]}


@pytest.fixture(scope="module")
def exact() -> dict[str, torch.Tensor]:
    return scores("float32")


@pytest.mark.parametrize(
    ("precision", "absrel", "degrees"), [("float8", 0.003, 0.3), ("int8", 0.003, 0.3), ("nf4", 0.01, 1)]
)
def test_depth_and_normals_stay_what_they_are(
    exact: dict[str, torch.Tensor], precision: str, absrel: float, degrees: float
) -> None:
    rounded = scores(precision)
    for path in ("core/depth/abs_rel", "sharp/depth/abs_rel"):
        difference = rounded[path] - exact[path]
        assert difference.abs().max() > 0  # the precision is really another
        assert difference.mean().abs() <= absrel
    assert abs(rounded["core/normals"].mean() - exact["core/normals"].mean()) <= degrees
