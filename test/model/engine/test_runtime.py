from __future__ import annotations

import copy
import logging
from functools import partial

import pytest
import torch
from torch import Tensor

from benchmarks.models import FLUX, TINY, build_fused, make_fused
from lotus2_ros.model.engine import runtime
from lotus2_ros.model.engine.runtime import (
    affordable_resolution,
    choose_resolution,
    compile_model,
    matmul_rate,
    optimize,
)
from lotus2_ros.model.layers.linear import FloatLinear
from lotus2_ros.model.lotus2.fused import FusedLotus2

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


def make_model() -> FusedLotus2:
    return make_fused(TINY, "float32", CPU, torch.float32)


def outputs(model: FusedLotus2) -> list[Tensor]:
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        latent = model.encode(image.to(model.device))
        cores = model.predict(latent, model.tasks)
        results = [latent, *cores.values(), model.velocity(latent, "depth", 0.5), model.decode(cores["depth"])]
    return [result.float().cpu() for result in results]


def assert_equal(results: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for result, wanted in zip(results, expected, strict=True):
        assert (result - wanted).norm() <= tolerance * wanted.norm()


# Optimising


def test_optimised_for_the_cpu_the_results_stay():
    model = make_model()
    expected = outputs(model)
    optimize(model, compile=True, graphs=True)
    assert_equal(outputs(model), expected, 1e-5)
    assert model.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    if torch.backends.mkldnn.is_available():
        assert all(module._packed is not None for module in model.modules() if isinstance(module, FloatLinear))


def test_a_large_model_is_not_held_twice(monkeypatch):
    model = make_model()
    monkeypatch.setattr(runtime, "PACKED_BYTES", 1000)
    optimize(model, compile=False, graphs=False)
    assert all(module._packed is None for module in model.modules() if isinstance(module, FloatLinear))


def test_bfloat16_on_the_cpu_is_left_to_torch():
    model = make_fused(TINY, "bfloat16", CPU, torch.bfloat16)
    expected = outputs(model)
    optimize(model, compile=False, graphs=False)
    assert_equal(outputs(model), expected, 2e-2)


def test_compiled_blocks_give_the_same_for_all_sizes_and_share_code(monkeypatch):
    """As they are traced; machine code for each would take half a minute."""
    from torch._dynamo.utils import counters

    plain, compiled = make_model(), make_model()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(runtime, "compile_problem", lambda device: None)
    compile_model(compiled)
    counters.clear()
    for step, size in enumerate([(6, 8), (8, 8), (12, 8)]):
        latent = torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(step))
        with torch.inference_mode():
            assert_equal([compiled.core(latent, "depth")], [plain.core(latent, "depth")], 1e-5)
    # Double, single and last block: for the first size, and for all others.
    assert counters["stats"]["unique_graphs"] == 3 * 2


def test_without_a_compiler_a_warning_says_so(monkeypatch, caplog, tmp_path):
    from torch._inductor import config, utils

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    utils.clear_caches()
    model = make_model()
    with config.patch({"cpp.cxx": ("/nonexistent/c++",)}), caplog.at_level(logging.WARNING):
        compile_model(model)
    torch._dynamo.reset()
    (record,) = caplog.records
    assert record.getMessage().startswith("torch.compile does not work here, so the model runs slower: ")
    assert "\n" not in record.getMessage()
    assert all(block._compiled_call_impl is None for block in model.transformer.blocks)


# The resolution


@pytest.fixture(scope="module")
def flux() -> FusedLotus2:
    with torch.device("meta"):
        return build_fused(FLUX, "bfloat16")


@pytest.mark.parametrize(
    ("rate", "resolution"),
    [(790e12, 640), (2000e12, 1024), (1e12, 384)],  # by the reference's costs: 51 ms, 65 ms, far too long
)
def test_faster_cards_see_more(flux, rate, resolution):
    assert affordable_resolution(flux, rate, rate) == resolution


def test_never_above_the_model_s_own(flux):
    own = copy.copy(flux)
    own.settings = own.settings.changed(process_resolution=512)
    assert affordable_resolution(own, 1e18, 1e18) == 512
    own.settings = own.settings.changed(process_resolution=160)
    assert affordable_resolution(own, 1e18, 1e18) == 160


def test_on_a_cpu_the_model_s_own():
    model = make_model()
    assert choose_resolution(model) == model.settings.process_resolution


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float8", "int8", "nf4"])
def test_rate_of_products_is_measured_in_each_precision(precision):
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    assert matmul_rate(CPU, precision, dtype, size=64, runs=1) > 0


# On a GPU


@needs_gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float8", "int8", "nf4"])
def test_compiled_and_recorded_the_results_stay(precision):
    model = make_fused(TINY, precision, torch.device("cuda"), torch.bfloat16)
    expected = outputs(model)
    optimize(model, compile=True, graphs=True)
    for _ in range(2):
        assert_equal(outputs(model), expected, 3e-2)


@needs_gpu
def test_resolution_for_the_gpu_at_hand():
    model = make_fused(TINY, "bfloat16", torch.device("cuda"), torch.bfloat16)
    assert choose_resolution(model) == 1024  # tiny work for any card
