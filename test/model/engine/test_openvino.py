"""Stages compiled with OpenVINO: equal to torch's in every family, chosen by time, kept on disk."""

from __future__ import annotations

import errno
import gc
import hashlib
import itertools
import logging
import re
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.model.engine import choice, openvino, stored
from lotus2_ros.model.engine.choice import EngineChoice
from lotus2_ros.model.engine.openvino import CompiledStages
from lotus2_ros.model.engine.stored import LARGEST_BYTES, StoredStages
from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2.fuse import fuse
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.torch_model import InferenceModel

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
FLOAT32 = EngineChoice("openvino", CPU, dtype="float32", threads=1)
AUTO = EngineChoice("auto", CPU, dtype="float32", threads=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lotus2_ros" / "openvino"


def fused(model: TrainableLotus2) -> InferenceModel:
    return fuse(model.source(), "float32", device=CPU, dtype=torch.float32)


@pytest.fixture
def lotus2(small: TrainableLotus2) -> InferenceModel:
    return fused(small)


@pytest.fixture(params=["small", "with_uncertainty", "lotus-d", "lotus-g"])
def model(request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> InferenceModel:
    """One of each family, and one with an image prior and an uncertainty head."""
    if request.param in ("small", "with_uncertainty"):
        return fused(request.getfixturevalue(request.param))
    folder = tmp_path / "lotus-depth-disparity"
    folder.symlink_to(shared / "golden" / f"tiny-{request.param}")
    return load_model(folder, device=CPU, samples=2)


def picture(width: int = 64) -> Tensor:
    return torch.rand(1, 3, 48, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.inference_mode()
def outputs(model: InferenceModel, image: Tensor) -> dict[str, Tensor]:
    """Of every stage."""
    latent = model.encode(image)
    found = {"latent": latent} | model.predict(latent, model.tasks)
    found |= {f"decoded {task}": model.decode(found[task]) for task in model.tasks}
    if model.has_uncertainty:
        found["deviation"] = model.predict_uncertainty(found["depth"])
    return found | {
        f"step {task}": model.sharpen(found[task], task, steps=2).result()
        for task in model.tasks
        if model.has_sharpener(task)
    }


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float) -> None:
    for name, wanted in expected.items():
        assert found[name].dtype == wanted.dtype
        assert (found[name] - wanted).norm() <= bound * wanted.norm(), name


def test_every_stage_of_every_family_equals_torch(model: InferenceModel, caplog: pytest.LogCaptureFixture) -> None:
    expected = outputs(model, picture())
    with caplog.at_level(logging.WARNING):
        model.executor = CompiledStages(model, FLOAT32)
        found = outputs(model, picture())
    assert not caplog.records  # nothing was left to torch
    assert_close(found, expected, 1e-5)
    steps = sum(map(model.has_sharpener, model.tasks))
    common = 2 + model.has_uncertainty  # encoder and decoder
    assert len(model.executor) == common + len(model.tasks) + steps
    assert not torch.equal(outputs(model, -picture())["depth"], found["depth"])  # no input became a constant


def test_bfloat16_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "multiplies_bfloat16", lambda device: True)
    assert EngineChoice("openvino", CPU).openvino_dtype is torch.bfloat16
    assert FLOAT32.openvino_dtype is torch.float32
    assert EngineChoice("openvino", CPU, "GPU").openvino_dtype is torch.float32
    monkeypatch.setattr(choice, "multiplies_bfloat16", lambda device: False)
    assert EngineChoice("openvino", CPU).openvino_dtype is torch.float32
    assert EngineChoice("openvino", CPU, dtype="bfloat16").openvino_dtype is torch.bfloat16


def test_bfloat16_does_not_show_as_steps(lotus2: InferenceModel) -> None:
    latent = torch.randn(1, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    expected = lotus2.core(latent, "depth"), lotus2.decode(latent)
    lotus2.executor = CompiledStages(lotus2, EngineChoice("openvino", CPU, dtype="bfloat16", threads=1))
    for found, exact in zip((lotus2.core(latent, "depth"), lotus2.decode(latent)), expected, strict=True):
        assert found.dtype == torch.float32 and (found - exact).norm() <= 5e-2 * exact.norm()
    depth = found.mean(1)
    assert len(depth.unique()) > 0.9 * depth.numel()  # 0.28 if the decoder's output were bfloat16


@pytest.mark.parametrize(("ours", "torchs", "runs"), [(1.0, 2.0, 1), (2.0, 2.0, 1), (2.1, 2.0, 0)])
@pytest.mark.parametrize(("busy_starts", "shows"), [(0, True), (2, True), (1, False)])
def test_auto_takes_the_engine_that_is_not_slower(
    lotus2: InferenceModel,
    monkeypatch: pytest.MonkeyPatch,
    ours: float,
    torchs: float,
    runs: int,
    busy_starts: int,
    shows: bool,
) -> None:
    """It is timed once, at the first start when the machine is not busy; only the first start compiles.

    That other programs run ``shows`` before, in the average load, or only in what they use meanwhile.
    """
    measured: list[int] = []
    monkeypatch.setattr(CompiledStages, "_measure", lambda self, *runs: measured.append(1) or [ours, torchs])
    key, function = ("double",), lambda x: 2 * x
    for start in range(busy_starts + 2):
        busy = start < busy_starts
        monkeypatch.setattr(openvino, "is_busy", lambda busy=busy: busy and shows)
        used = itertools.count(step=1.0 if busy else 0.0)
        monkeypatch.setattr(openvino, "seconds_of_others", lambda used=used: next(used))
        executor = CompiledStages(lotus2, AUTO)
        for _ in range(2):
            assert torch.equal(executor(key, function, torch.ones(3)), torch.full((3,), 2.0))
        assert len(executor) == (1 if busy else runs)
        assert len(measured) == (0 if shows else min(start + 1, busy_starts)) + (not busy)
        monkeypatch.setattr(CompiledStages, "_convert", lambda *_: pytest.fail("it was compiled again"))


def test_times_are_the_shortest_of_a_few_runs_in_turn(lotus2: InferenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    times = iter([3.0, 1.0, 2.0, 5.0, 9.0, 0.5])

    def seconds(run) -> float:
        run()
        return next(times)

    monkeypatch.setattr(openvino, "seconds", seconds)
    measured = CompiledStages(lotus2, AUTO)._measure(lambda: order.append("a"), lambda: order.append("b"))
    assert measured == [2.0, 0.5]
    assert order == ["a", "b"] * 3


@torch.inference_mode()
def encode(model: InferenceModel) -> Tensor:
    """By new stages, as after another start."""
    model.executor = CompiledStages(model, FLOAT32)
    return model.encode(picture())


def test_the_second_load_finds_the_stages_on_disk(
    lotus2: InferenceModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(lotus2)
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(CompiledStages, "_convert", lambda *_: pytest.fail("it was compiled again"))
        assert torch.equal(encode(lotus2), first)
    lotus2.vae.encoder.conv_out.bias += 1  # other weights, other stages
    assert not torch.allclose(encode(lotus2), first)
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_file_is_made_again(lotus2: InferenceModel, cache: Path) -> None:
    executor = CompiledStages(lotus2, FLOAT32)
    executor(("double",), lambda x: 2 * x, torch.ones(3))
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    refused = b"+" + b"of another build of OpenVINO" * 100
    refused = hashlib.blake2b(refused, digest_size=stored.DIGEST).digest() + refused
    for damaged in (b"", whole[:100], whole[:-1] + bytes([whole[-1] ^ 1]), refused):
        path.write_bytes(damaged)
        executor = CompiledStages(lotus2, FLOAT32)
        assert torch.equal(executor(("double",), lambda x: 2 * x, torch.ones(3)), torch.full((3,), 2.0))
        assert len(executor) == 1 and path.stat().st_size > 100 and path.read_bytes() != damaged


def test_the_oldest_files_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LARGEST_BYTES > 1 << 30
    monkeypatch.setattr(stored, "LARGEST_BYTES", 250)
    files = StoredStages(tmp_path, "model")
    for name in "abc":
        files.write(bytes(100), name)  # and 16 of its digest
    kept = [name for name in "abc" if files.read(name) is not None]
    assert len(kept) == 2 and "c" in kept
    assert StoredStages(tmp_path, "another model").read("c") is None
    assert StoredStages(None, "model").read("c") is None


def test_a_full_disk_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, replace = StoredStages(tmp_path, "model"), Path.replace

    def full(path: Path, target: Path) -> Path:
        assert path.stat().st_size > 100
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    files.write(bytes(100), "a")
    assert not list(tmp_path.iterdir()) and files.read("a") is None
    monkeypatch.setattr(Path, "replace", replace)
    files.write(bytes(100), "a")
    assert files.read("a") == bytes(100) and len(list(tmp_path.iterdir())) == 1


def test_what_does_not_compile_runs_in_torch(lotus2: InferenceModel, caplog: pytest.LogCaptureFixture) -> None:
    executor = CompiledStages(lotus2, FLOAT32)

    with caplog.at_level(logging.WARNING):
        for x in (torch.tensor([2.0, 1.0]), torch.tensor([4.0, 3.0])):
            assert torch.equal(executor(("bessel",), torch.special.bessel_j0, x), torch.special.bessel_j0(x))
    assert len(executor) == 0
    (record,) = caplog.records
    assert record.getMessage().startswith("bessel runs in torch instead of OpenVINO: ")
    assert "Exception from" not in record.getMessage()


def test_a_stage_that_computes_something_else_is_not_used(
    lotus2: InferenceModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openvino, "run_compiled", lambda compiled: lambda x: 2.1 * x)
    executor = CompiledStages(lotus2, FLOAT32)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(executor(("double",), lambda x: 2 * x, torch.ones(3)), torch.full((3,), 2.0))
    assert "expected torch's result, got one that is 0.05 away" in caplog.text


def test_few_sizes_are_kept(lotus2: InferenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "STAGES", 2)
    executor = CompiledStages(lotus2, FLOAT32)
    for size in (3, 4, 5):
        executor(("double",), lambda x: 2 * x, torch.ones(size))
    assert len(executor) == 2


def test_a_model_that_is_dropped_is_freed(small: TrainableLotus2) -> None:
    model = fused(small)
    encode(model)
    left = weakref.ref(model), weakref.ref(model.executor)
    del model
    gc.collect()
    assert [each() for each in left] == [None, None]


def engine(live: bool = True, **values: object) -> EngineChoice:
    return EngineChoice.of(
        Config().updated({f"model.{name}": value for name, value in values.items()}).model, live=live
    )


@pytest.mark.parametrize("device", ["XYZ", "GPU.9"])  # the second is of a kind that OpenVINO knows
def test_a_device_that_is_not_there_is_told_at_load(lotus2: InferenceModel, device: str) -> None:
    with pytest.raises(ValueError, match=rf"^expected model\.device openvino:CPU.*, got openvino:{re.escape(device)}$"):
        CompiledStages(lotus2, engine(device=f"openvino:{device}"))


def test_which_engine_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine(device="cpu").name == "auto"
    assert engine(device="cpu", live=False).name == engine(device="cpu", compile=False).name == "torch"
    assert engine(device="openvino:GPU.1").openvino_device == "GPU.1"
    chosen = engine(engine="openvino", dtype="bfloat16", live=False)
    assert (chosen.name, chosen.device, chosen.weight_dtype) == ("openvino", CPU, "float32")
    with pytest.raises(ValueError, match=r"openvino: expected model\.device cpu or openvino:<device>, got cuda"):
        engine(engine="openvino", device="cuda")
    with pytest.raises(ValueError, match=r"expected model\.engine openvino for model\.device openvino:GPU"):
        engine(engine="torch", device="openvino:GPU")
    monkeypatch.setattr(choice, "has_openvino", lambda: False)
    with pytest.raises(
        ValueError, match=r"^model\.engine openvino needs the package openvino; .*: pip install openvino$"
    ):
        engine(engine="openvino")


def test_auto_tries_small_float32_models_on_a_cpu_with_openvino(
    lotus2: InferenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AUTO.tries_openvino(lotus2)
    assert not EngineChoice("torch", CPU).tries_openvino(lotus2)
    with monkeypatch.context() as patch:
        patch.setattr(choice, "COMPILED_BYTES", 1000)
        assert not AUTO.tries_openvino(lotus2) and FLOAT32.tries_openvino(lotus2)
    with monkeypatch.context() as patch:
        patch.setattr(choice, "has_openvino", lambda: False)
        assert not AUTO.tries_openvino(lotus2)
    assert not AUTO.tries_openvino(lotus2.to(torch.bfloat16))


def test_nothing_is_reported_over_the_network() -> None:
    openvino.import_openvino()
    assert "openvino.tools.ovc.telemetry_stub" in sys.modules
    assert sys.modules.get("openvino_telemetry") is None
