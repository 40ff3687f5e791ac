"""What a frame needs in memory, and what follows from it."""

from __future__ import annotations

import logging
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.lotus_models import SMALL, build_lotus
from benchmarks.models import FLUX, TINY, build_fused, make_fused
from lotus2_ros.model.engine import memory, runtime
from lotus2_ros.model.engine.memory import activation_bytes, check_headroom, frame_bytes, free_compiled
from lotus2_ros.model.engine.runtime import choose_resolution, fitting_resolution, is_compiled, matmul_rate
from lotus2_ros.model.memory import MemoryShortageError, free_memory, memory_errors, require_memory

CPU = torch.device("cpu")
MB = 1 << 20


@pytest.fixture(scope="module")
def flux():
    """Of the true width; blocks run one after the other, so more of them need no more memory."""
    transformer = {**FLUX.configs["transformer"], "num_layers": 1, "num_single_layers": 1}
    shape = replace(FLUX, configs={**FLUX.configs, "transformer": transformer})
    with torch.device("meta"):
        return build_fused(shape, "bfloat16").to(torch.bfloat16)


def test_activations_are_those_that_are_alive_together():
    model = nn.Sequential(nn.Linear(1000, 2000, bias=False), nn.ReLU(), nn.Linear(2000, 10, bias=False)).to("meta")
    x = torch.empty(100, 1000, device="meta")
    with torch.no_grad():
        # The first product and its ReLU; not the input, which was there before, and not the weights.
        assert memory._peak(model, lambda: model(x)) == 2 * 4 * 100 * 2000


def test_activations_grow_with_the_image_and_not_with_the_square_of_the_tokens(flux):
    small, large = (activation_bytes(flux, *size, ("depth",)) for size in ((480, 640), (960, 1280)))
    assert large == pytest.approx(4 * small, rel=0.1)
    # The decoder's last level, 128 channels in bfloat16, is what counts: a handful of them.
    assert 3 * 2 * 128 * 480 * 640 <= small <= 8 * 2 * 128 * 480 * 640


@pytest.mark.parametrize("family", ["lotus-d", "lotus-g"])
def test_other_families_are_counted_too(family):
    with torch.device("meta"):
        model = build_lotus(family, SMALL, ("depth", "normals"))
    assert activation_bytes(model, 64, 96) > 3 * 64 * 96 * 4


def test_the_resolution_fits_the_memory(flux, caplog):
    needed = {size: frame_bytes(flux, *size) for size in ((768, 1024), (480, 640))}
    assert fitting_resolution(flux, 1024, needed[768, 1024]) == 1024
    assert fitting_resolution(flux, 1024, needed[480, 640]) == 640
    assert fitting_resolution(flux, 640, needed[768, 1024]) == 640
    assert not caplog.records
    assert fitting_resolution(flux, 512, 0) == 384
    assert "are left: expect to run out of memory" in caplog.text


def test_on_a_gpu_time_and_memory_decide(flux, monkeypatch):
    card = SimpleNamespace(device=torch.device("cuda"), linear_precision="bfloat16", dtype=torch.bfloat16, vae=flux.vae)
    card.compiled_parts = flux.compiled_parts
    monkeypatch.setattr(runtime, "matmul_rate", lambda *_, compiled: 790e12)
    monkeypatch.setattr(runtime, "affordable_resolution", lambda *_: 640)
    monkeypatch.setattr(runtime, "fitting_resolution", lambda model, wanted, room: (wanted, room))
    monkeypatch.setattr(memory, "free_memory", lambda device: 23_000_000_000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 24_000_000_000))
    assert choose_resolution(card) == (640, 20_600_000_000)  # a tenth of the card stays free


@pytest.mark.parametrize(("free", "warns"), [(2_300_000_000, True), (2_500_000_000, False)])
def test_a_card_that_is_nearly_full_is_warned_of(monkeypatch, caplog, free, warns):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 24_000_000_000))
    check_headroom(torch.device("cuda"))
    check_headroom(CPU)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warns
    assert not warns or "2.3 of 24.0 GB of GPU memory are free, less than 10 %" in caplog.text


def test_the_rate_is_that_of_compiled_code_if_the_model_is_compiled(monkeypatch):
    model = make_fused(TINY, "int8", CPU, torch.float32)
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: compiled.append(self))
    matmul_rate(CPU, "int8", torch.float32, size=32, runs=1)
    assert not compiled
    matmul_rate(CPU, "int8", torch.float32, size=32, runs=1, compiled=True)
    assert len(compiled) == 1
    assert not is_compiled(model)
    next(iter(model.compiled_parts()))._compiled_call_impl = print
    assert is_compiled(model)


def test_a_compiled_model_is_freed():
    model = make_fused(TINY, "float32", CPU, torch.float32)
    model.vae.encoder.conv_in.compile(backend="eager")
    with torch.inference_mode():
        model.vae.encoder.conv_in(torch.randn(1, 3, 16, 16))
    freed = weakref.ref(model)
    del model
    free_compiled()
    assert freed() is None


# Memory that is free


def test_what_is_free_is_known_before_it_is_needed():
    free = free_memory(CPU)
    assert free is not None and 100 * MB < free < 1 << 44
    require_memory(CPU, free // 2, "it")
    with pytest.raises(MemoryShortageError, match=r"expected \d+\.\d GB of free memory on cpu for it, got \d+\.\d GB"):
        require_memory(CPU, 2 * free, "it")


def test_a_container_s_limit_counts(monkeypatch, tmp_path):
    for name, text in (("LIMIT", "3000000\n"), ("USED", "1000000\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr("lotus2_ros.model.memory." + name, tmp_path / name)
    assert free_memory(CPU) == 2_000_000
    (tmp_path / "LIMIT").write_text("max\n")
    assert free_memory(CPU) > 100 * MB


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore lines"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("unable to mmap 100 bytes from file: Cannot allocate memory (12)"),
    ],
)
def test_errors_about_memory_are_one_line_and_say_what_to_do(error):
    with pytest.raises(MemoryShortageError, match=r"^too little memory \([^\n]+\); buy$"), memory_errors("buy"):
        raise error


def test_other_errors_stay():
    with pytest.raises(RuntimeError, match="shape"), memory_errors():
        raise RuntimeError("shape mismatch")
