"""Export and ONNX Runtime, on small random models of each family."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import lotus2_ros
from lotus2_ros.config.output import OutputError
from lotus2_ros.model.engine.onnxruntime import CPU, GraphSession
from lotus2_ros.model.export.export import ExportDifferenceError, difference, export
from lotus2_ros.model.export.graphs import write_graph
from lotus2_ros.model.export.manifest import ExportManifest
from lotus2_ros.model.export.stages import constants_computed, run_stages, stages_of
from lotus2_ros.model.image_size import ImageSizeError
from lotus2_ros.model.load import load_model
from lotus2_ros.model.weights import CheckpointError

MISSING = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} missing: pip install 'lotus2_ros[export]'"),
]

SIZE = (24, 40)  # height, width
CLOSE = 1e-3


def exported(source: Path, output: Path, **options) -> Path:
    lines: list[str] = []
    export(source, output, size=SIZE, say=lines.append, **options)
    assert all(f"{graph}.onnx" in lines for graph in ExportManifest.of(output).graphs)
    return output


@pytest.fixture(scope="session")
def bundle(bundle_with_prior) -> Path:
    """A Lotus-2 with an image prior and a sharpener."""
    return bundle_with_prior


@pytest.fixture(scope="session")
def lotus2(bundle, tmp_path_factory) -> Path:
    """Exported as a large model: graphs that share their weights."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("lotus2_ros.model.export.export.SMALL_BYTES", 0)
        return exported(bundle, tmp_path_factory.mktemp("export") / "lotus2", tasks=("normals",))


def image(seed: int = 1) -> torch.Tensor:
    """(H, W, 3) uint8."""
    return torch.randint(0, 256, (*SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape and (found - expected).abs().max() <= CLOSE


def test_lotus2_predicts_and_sharpens_as_torch_does(bundle, lotus2):
    ours = lotus2_ros.load(bundle, device="cpu", dtype="float32", tasks=("normals",))
    theirs = lotus2_ros.load(lotus2)
    expected, found = ours.predict(image()), theirs.predict(image())
    assert found.disparity is None
    assert_close(found.normals, expected.normals)
    assert_close(found.latents["normals"], expected.latents["normals"])
    for steps in (1, 3):
        sharp, wanted = theirs.sharpen(found, steps=steps).result(), ours.sharpen(expected, steps=steps).result()
        assert_close(sharp.normals, wanted.normals)
        assert (sharp.normals - found.normals).abs().max() > 10 * CLOSE  # it did something


@pytest.mark.larger_set  # the tracing of seven graphs takes half a minute
@pytest.mark.parametrize(("family", "output"), [("tiny-lotus-d", "normals"), ("tiny-lotus-g", "disparity")])
def test_lotus_predicts_as_torch_does(family, output, shared, tmp_path):
    kind = {"normals": "normal", "disparity": "disparity"}[output]
    source = tmp_path / f"{family}-{kind}"
    source.symlink_to(shared / "golden" / family)
    folder = exported(source, tmp_path / "export")
    options = {"parameters": {"model.samples": 3, "model.seed": 7}}
    expected = lotus2_ros.load(source, device="cpu", dtype="float32", process_resolution=SIZE[1], **options)
    estimator = lotus2_ros.load(folder, **options)
    found, wanted = estimator.predict(image()), expected.predict(image())
    assert_close(getattr(found, output), getattr(wanted, output))
    if family == "tiny-lotus-g":
        assert_close(found.uncertainty, wanted.uncertainty)
        assert wanted.uncertainty.max() > 0
    else:  # the graph from image to normals
        pixels = image().permute(2, 0, 1)[None] / 127.5 - 1
        normals = GraphSession(folder / "image_to_normals.onnx", [(CPU, {})])(pixels)
        assert_close(normals[0].permute(1, 2, 0), wanted.normals)


@pytest.mark.larger_set  # the tracing of six graphs
def test_an_uncertainty_head_is_a_graph_of_its_own(bundle_with_uncertainty, tmp_path):
    folder = exported(bundle_with_uncertainty, tmp_path / "export", tasks=("depth",))
    manifest = ExportManifest.of(folder)
    graph = manifest.graphs["uncertainty"]
    assert graph.inputs == {"annotation": (1, 4, 6, 10)} and graph.shape == (1, 1, 6, 10) and graph.error <= CLOSE
    assert "one standard deviation of the disparity" in (folder / "README.md").read_text()
    ours = lotus2_ros.load(bundle_with_uncertainty, device="cpu", dtype="float32", tasks=("depth",))
    assert_close(lotus2_ros.load(folder).predict(image()).uncertainty, ours.predict(image()).uncertainty)


def test_an_uncertainty_head_is_exported_with_depth_alone(bundle_with_uncertainty, tmp_path):
    model = load_model(bundle_with_uncertainty, device="cpu", dtype="float32", tasks=("normals",))
    assert "uncertainty" not in [stage.name for stage in stages_of(model, *SIZE, whole=False)]
    model = load_model(bundle_with_uncertainty, device="cpu", dtype="float32", tasks=("depth",))
    stage = next(stage for stage in stages_of(model, *SIZE, whole=False) if stage.name == "uncertainty")
    (given,) = (torch.randn(shape) for shape in stage.inputs.values())
    with torch.no_grad():
        write_graph(model, stage, tmp_path / "head.onnx", None)
        assert difference(GraphSession(tmp_path / "head.onnx", [(CPU, {})])(given), stage.run(given)) <= CLOSE


def test_half_precision_stays_near_float32(bundle, tmp_path):
    assert 0 < core_difference(bundle, "fp16", tmp_path, ("depth",)) <= 2e-2


def core_difference(source: Path, precision: str, folder: Path, tasks: tuple[str, ...]) -> float:
    """Of the core predictor alone, from torch in float32."""
    dtype = {"fp32": "float32", "fp16": "float16"}[precision]
    model = load_model(source, device="cpu", dtype="float32", tasks=tasks)
    with torch.inference_mode():
        results = run_stages(model, stages_of(model, *SIZE, whole=False))
    model = load_model(source, device="cpu", dtype=dtype, tasks=tasks)
    stage = next(stage for stage in stages_of(model, *SIZE, whole=False) if stage.name == "core_depth")
    with torch.no_grad(), constants_computed(model, *SIZE):
        write_graph(model, stage, folder / "core.onnx", None)
    inputs, output = results["core_depth"]
    assert inputs[0].shape == stage.inputs["latent"]
    return difference(GraphSession(folder / "core.onnx", [(CPU, {})])(*inputs), output)


def test_the_readme_and_the_manifest_name_every_graph(lotus2):
    manifest, text = ExportManifest.of(lotus2), (lotus2 / "README.md").read_text()
    assert list(manifest.graphs) == ["encode", "core_normals", "sharpen_normals", "decode"]
    for name, graph in manifest.graphs.items():
        assert f"trtexec --onnx={name}.onnx --saveEngine={name}.plan" in text
        assert graph.error is not None and graph.error <= CLOSE
        assert all(f"`{each}` {' x '.join(map(str, shape))}" in text for each, shape in graph.inputs.items())
    assert manifest.graphs["encode"].inputs == {"image": (1, 3, *SIZE)}
    assert "rgb / 127.5 - 1" in text and "| 10 |" in text  # normalization, and the last of ten steps
    assert "card" not in json.loads((lotus2 / "export.json").read_text())


def test_graphs_have_common_operators_in_float32_and_no_path_of_this_machine(lotus2):
    import onnx

    for file in lotus2.glob("*.onnx"):
        assert b"site-packages" not in file.read_bytes()
        graph = onnx.load(file, load_external_data=False).graph
        assert {node.domain for node in graph.node} == {""}
        assert "CastLike" not in {node.op_type for node in graph.node}
        types = {tensor.data_type for tensor in graph.initializer}
        types |= {
            each.i for node in graph.node if node.op_type == "Cast" for each in node.attribute if each.name == "to"
        }
        assert types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}


def test_graphs_share_their_weights(bundle, lotus2):
    assert sum(file.stat().st_size for file in lotus2.glob("*.onnx")) < (lotus2 / "weights.bin").stat().st_size
    model = load_model(bundle, device="cpu", dtype="float32", tasks=("normals",))
    stored = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert (lotus2 / "weights.bin").stat().st_size < 1.5 * stored
    assert "weights.bin" in (lotus2 / "README.md").read_text()


def test_an_export_leaves_files_of_others(bundle, tmp_path, monkeypatch):
    output = tmp_path / "export"
    written: list[str] = []

    def write(model, stage, path, weights):
        written.append(stage.name)
        path.write_bytes(b"graph")

    monkeypatch.setattr("lotus2_ros.model.export.export.write_graph", write)
    export(bundle, output, size=SIZE, check=False, say=lambda line: None)
    (output / "encode.plan").write_text("an engine")
    export(bundle, output, size=SIZE, check=False, tasks=("depth",), say=lambda line: None)
    assert (output / "encode.plan").read_text() == "an engine"
    assert not (output / "core_normals.onnx").exists() and (output / "core_depth.onnx").exists()
    assert not output.with_name("export.part").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not written by `lotus2 export`"):
        export(bundle, other)
    with pytest.raises(OutputError, match="is the input"):
        export(bundle, bundle)


def test_a_graph_that_differs_from_torch_is_not_kept(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("lotus2_ros.model.export.export.write_graph", lambda model, stage, path, weights: path.touch())
    monkeypatch.setattr(
        "lotus2_ros.model.engine.onnxruntime.GraphSession", lambda path, providers: lambda *inputs: torch.zeros(1)
    )
    with pytest.raises(ExportDifferenceError, match=r"encode: expected a difference to torch of at most 0.001, got"):
        export(bundle, tmp_path / "export", size=SIZE, tasks=("normals",), say=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_an_exported_model_takes_images_of_its_shape_alone(lotus2):
    estimator = lotus2_ros.load(lotus2)
    larger = image().repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert estimator.predict(larger).normals.shape == (96, 160, 3)
    with pytest.raises(ImageSizeError, match="exported for images of the shape of 40x24, got 40x12"):
        estimator.predict(image()[:12])
    with pytest.raises(ImageSizeError, match="exported for images of the shape of 40x24"):
        estimator.warm_up(40, 24)  # height, width


def test_what_does_not_fit_is_one_line(lotus2, bundle, tmp_path):
    with pytest.raises(ValueError, match=r"--size: expected multiples of 8 for random, such as 24x40, got 25x40"):
        export(bundle, tmp_path / "export", size=(25, 40))
    with pytest.raises(ValueError, match=r"model.device cuda: this onnxruntime has .*CPUExecutionProvider only"):
        lotus2_ros.load(lotus2, parameters={"model.device": "cuda"})
    with pytest.raises(ValueError, match=r"expected model.engine onnxruntime for an exported model, got torch"):
        lotus2_ros.load(lotus2, engine="torch")
    with pytest.raises(ValueError, match=r"model.engine onnxruntime: expected a folder that `lotus2 export` wrote"):
        lotus2_ros.load(bundle, engine="onnxruntime")
    with pytest.raises(CheckpointError, match="written by `lotus2 export`, for ONNX Runtime; expected what was"):
        export(lotus2, tmp_path / "export")
    with pytest.raises(CheckpointError, match="expected tasks among normals, got 'depth'"):
        lotus2_ros.load(lotus2, tasks=("depth",))
    with pytest.raises(ValueError, match=r"expected model.posterior mode"):
        lotus2_ros.load(lotus2, parameters={"model.posterior": "sample"})
    estimator = lotus2_ros.load(lotus2)
    with pytest.raises(ValueError, match="expected 1 to 50 sharpener steps, got 51"):
        estimator.sharpen(estimator.predict(image()), steps=51)
    broken = tmp_path / "broken"
    broken.mkdir()
    text = (lotus2 / "export.json").read_text()
    (broken / "export.json").write_text(text.replace('"multiple": 8', '"multiple": "8"'))
    with pytest.raises(CheckpointError, match=r"export.json: multiple: expected a valid integer, got '8'"):
        lotus2_ros.load(broken)
    for key, value, message in (
        ("size", [0, 40], "size.0: expected greater than or equal to 1, got '0'"),
        (
            "schedules",
            {"1": {"sigmas": [1.0], "timesteps": [5.0]}},
            "schedules.1: .*expected 2 sigmas, got 1",
        ),
    ):
        (broken / "export.json").write_text(json.dumps(json.loads(text) | {key: value}))
        with pytest.raises(CheckpointError, match=f"export.json: {message}"):
            lotus2_ros.load(broken)
    (broken / "export.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"encode.onnx: file not found; export the model again"):
        lotus2_ros.load(broken)
    for file in lotus2.iterdir():
        if file.name != "export.json":
            (broken / file.name).symlink_to(file)
    (broken / "encode.onnx").unlink()
    (broken / "encode.onnx").symlink_to(lotus2 / "decode.onnx")  # of an export of another size, or misplaced
    with pytest.raises(CheckpointError, match=r"encode.onnx: expected .*'image': .*, got .*'annotation': .*again$"):
        lotus2_ros.load(broken)


def test_quantized_bundles_are_refused(bundle, tmp_path):
    from lotus2_ros.cli import main

    prepared = tmp_path / "int8"
    assert main(["prepare", "--bundle", str(bundle), "--output", str(prepared), "--precision", "int8"]) == 0
    with pytest.raises(ValueError, match="expected a bundle in float32 or bfloat16, got int8; prepare it again"):
        export(prepared, tmp_path / "export", size=SIZE)
