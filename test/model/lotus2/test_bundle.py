from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import WEIGHTS, load_bundle, save_bundle
from lotus2_ros.model.manifest import MANIFEST
from lotus2_ros.model.weights import CheckpointError

METADATA = {"name": "small", "licence": "Apache-2.0", "sources": {"base": "00ff"}, "card": {"scenes": 3}}


def results(model: Lotus2, image: torch.Tensor) -> list[torch.Tensor]:
    """Core and sharpened annotation of every task."""
    with torch.inference_mode():
        latent = model.encode(image)
        cores = {task: model.core(latent, task) for task in model.tasks}
        sharp = [model.sharpen(core, task, 2).result() for task, core in cores.items()]
        return [model.decode(latent) for latent in [*cores.values(), *sharp]]


@pytest.fixture
def bundle(small: Lotus2, tmp_path: Path) -> Path:
    save_bundle(small, tmp_path, metadata=METADATA, dtype=torch.float32)
    return tmp_path


def test_a_bundle_brings_the_model_back(small: Lotus2, bundle: Path, image: torch.Tensor) -> None:
    loaded = load_model(bundle, device="cpu")
    # Not bit for bit: where a tensor lies in memory, here in a mapped file, decides how a sum is ordered.
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(results(small, image), results(loaded, image), strict=True)
    )
    assert loaded.metadata == METADATA
    assert (loaded.settings, loaded.multiple) == (small.settings, small.multiple)
    assert not loaded.training
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())


def test_the_manifest_says_what_is_inside(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    assert (manifest["format"], manifest["family"], manifest["dtype"]) == (1, "lotus-2", "float32")
    assert manifest["stages"]["normals"] == ["core_predictor", "detail_sharpener"]
    assert sorted(manifest["adapters"]) == [
        "core_predictor_normals",
        "detail_sharpener_depth",
        "detail_sharpener_normals",
    ]
    assert manifest["adapters"]["detail_sharpener_depth"]["alpha"] == 8
    assert not any("base_layer" in name for name in load_file(bundle / WEIGHTS))
    assert {file.name for file in bundle.iterdir()} == {MANIFEST, WEIGHTS}


def test_a_bundle_says_how_images_are_sized(small: Lotus2, tmp_path: Path) -> None:
    """By the longer side unless it says by area, as bundles did before there was a choice."""
    small.settings = small.settings.changed(process_by_area=True)
    save_bundle(small, tmp_path, metadata=METADATA, dtype=torch.float32)
    assert load_model(tmp_path, device="cpu").process_size(100, 400, 64) == (24, 96)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    del manifest["process_by_area"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert load_model(tmp_path, device="cpu").process_size(100, 400, 64) == (16, 64)


def test_float16_weights_run_in_float32(small: Lotus2, tmp_path: Path, image: torch.Tensor) -> None:
    save_bundle(small, tmp_path, metadata=METADATA, dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / WEIGHTS).values()} == {torch.float16}
    loaded = load_model(tmp_path, device="cpu", dtype="float32")
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    assert all(
        torch.allclose(a, b, atol=0.02) for a, b in zip(results(small, image), results(loaded, image), strict=True)
    )


def test_in_float16_the_vae_stays_in_float32(bundle: Path, image: torch.Tensor) -> None:
    loaded = load_model(bundle, device="cpu", dtype="float16")
    assert (loaded.dtype, loaded.vae.dtype) == (torch.float16, torch.float32)
    assert loaded.encode(image).dtype == torch.float16
    assert loaded.decode(loaded.encode(image)).dtype == torch.float32


def test_one_task_of_two(small: Lotus2, bundle: Path, image: torch.Tensor) -> None:
    loaded = load_model(bundle, device="cpu", tasks=("normals",))
    assert sorted(loaded.plan.adapters) == ["core_predictor_normals", "detail_sharpener_normals"]
    assert torch.allclose(results(loaded, image)[0], results(small, image)[1], atol=1e-5)
    with pytest.raises(CheckpointError, match="expected tasks among depth, normals, got 'flow'"):
        load_model(bundle, device="cpu", tasks=("flow",))


def test_the_timestep_dtype_is_the_bundles_own_unless_asked_for(bundle: Path) -> None:
    assert load_model(bundle, device="cpu").settings.timestep_dtype == "bfloat16"
    assert load_model(bundle, device="cpu", timestep_dtype="float32").settings.timestep_dtype == "float32"


def test_a_loaded_model_may_be_saved_over_its_own_files(bundle: Path, image: torch.Tensor) -> None:
    loaded = load_bundle(bundle, device=torch.device("cpu"), dtype=torch.float32)
    before = results(loaded, image)
    save_bundle(loaded, bundle, metadata=loaded.metadata, dtype=torch.float16)
    assert all(torch.equal(a, b) for a, b in zip(before, results(loaded, image), strict=True))


Change = Callable[[dict], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("vae.encoder.conv_in.bias"), r"missing key vae\.encoder\.conv_in\.bias"),
        (lambda w: w.update({"vae.extra": torch.zeros(1)}), r"unexpected key vae\.extra"),
        (
            lambda w: w.update({"conditioner.pooled": torch.zeros(1, 5)}),
            r"expected conditioner\.pooled of shape \(1, 4\), got \(1, 5\)",
        ),
        (lambda w: w.pop("continuity.depth.layers.0.bias"), r"missing key continuity\.depth\.layers\.0\.bias"),
        *(
            (
                lambda w, dtype=dtype: w.update({"conditioner.pooled": torch.zeros(1, 4, dtype=dtype)}),
                rf"expected conditioner\.pooled in float32, got {str(dtype).removeprefix('torch.')}",
            )
            for dtype in (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
        ),
    ],
)
def test_weights_must_fit(bundle: Path, change: Change, message: str) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(bundle / WEIGHTS).items()}
    change(weights)
    save_file(weights, bundle / WEIGHTS)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {message}"):
        load_model(bundle, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=3), r"expected format 1 or 2 of family lotus-2, .*, got format 3 of family lotus-2"),
        (lambda m: m.update(family="other"), "got format 1 of family other"),
        (lambda m: m.pop("components"), "missing key components"),
        (lambda m: m["components"]["vae"].update(color="red"), "color"),
        (
            lambda m: m["components"]["transformer"].update(in_channels=64),
            "to 16 channels, for latents packed 2x2, got 64 to 64",
        ),
        (
            lambda m: m["components"]["transformer"].update(in_channels=4),
            "from 16 to 16 channels, .*, got 4 to 4",
        ),
        (
            lambda m: m["components"]["transformer"].update(in_channels=32, out_channels=16),
            "from 16 to 16 channels, for latents packed 2x2, got 32 to 16",
        ),
        (lambda m: m.update(conditioning="int3"), "conditioning: expected .*, got 'int3'"),
    ],
)
def test_the_manifest_must_fit(bundle: Path, change: Change, message: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=rf"bundle\.json: .*{message}"):
        load_model(bundle, device="cpu")


def test_broken_files_are_told_in_one_line(bundle: Path) -> None:
    whole = (bundle / WEIGHTS).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PK\x03\x04 not a zip", b"{}"):
        (bundle / WEIGHTS).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"^[^\n]*model\.safetensors: truncated or not a weight file[^\n]*$"):
            load_model(bundle, device="cpu")
    (bundle / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: file not found"):
        load_model(bundle, device="cpu")
    (bundle / MANIFEST).write_text("[]")
    with pytest.raises(CheckpointError, match=r"bundle\.json: expected an object, got"):
        load_model(bundle, device="cpu")
    (bundle / MANIFEST).write_text("{")
    with pytest.raises(CheckpointError, match=r"bundle\.json: not JSON"):
        load_model(bundle, device="cpu")
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(bundle / "none", device="cpu")
    (bundle / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="neither a bundle"):
        load_model(bundle, device="cpu")


def test_metadata_is_checked(small: Lotus2, tmp_path: Path) -> None:
    for metadata in ({"name": "x"}, METADATA | {"mood": "good"}):
        with pytest.raises(ValueError, match="expected metadata name, licence"):
            save_bundle(small, tmp_path, metadata=metadata, dtype=torch.float16)


def test_names_of_devices_and_dtypes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"expected a CUDA GPU for device 'cuda', but torch .* sees none"):
        load_model(bundle, device="cuda")
    with pytest.raises(ValueError, match="expected a device of auto, cpu or cuda, got 'gpu'"):
        load_model(bundle, device="gpu")
    with pytest.raises(ValueError, match="expected a dtype of float32, bfloat16, float16, got 'float8'"):
        load_model(bundle, device="cpu", dtype="float8")
    assert load_model(bundle, device="auto", dtype="auto").dtype == torch.float32
