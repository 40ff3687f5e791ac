from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lotus2_ros.cli import main
from lotus2_ros.model.lotus2.base import Lotus2
from lotus2_ros.model.lotus2.bundle import save_bundle

METADATA = {"name": "small", "licence": "Apache-2.0"}


@pytest.fixture
def bundle(small: Lotus2, tmp_path: Path) -> str:
    save_bundle(small, tmp_path / "bundle", metadata=METADATA, dtype=torch.float32)
    return str(tmp_path / "bundle")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """45 rows, 70 columns."""
    path = tmp_path / "street.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8))
    return str(path)


def infer(output: Path, *arguments: str) -> Path:
    assert main(["infer", *arguments, "--device", "cpu", "--output", str(output)]) == 0
    return output / "street"


def digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.npy")}


def test_arrays_and_preview(bundle: str, picture: str, tmp_path: Path) -> None:
    folder = infer(tmp_path / "out", picture, "--model", bundle)
    assert {file.name for file in folder.iterdir()} == {"disparity.npy", "normals.npy", "preview.png"}
    disparity, normals = np.load(folder / "disparity.npy"), np.load(folder / "normals.npy")
    assert (disparity.shape, disparity.dtype) == ((45, 70), np.float32)
    assert disparity.min() >= 0 and disparity.max() <= 1
    assert (normals.shape, normals.dtype) == ((45, 70, 3), np.float32)
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)


def test_with_intrinsics_depth_and_cloud(bundle: str, picture: str, tmp_path: Path) -> None:
    folder = infer(tmp_path / "out", picture, "--model", bundle, "--intrinsics", "60,50,30,25")
    depth = np.load(folder / "depth.npy")
    assert (depth.shape, depth.dtype) == ((45, 70), np.float32)
    header, _, body = (folder / "points.ply").read_bytes().partition(b"end_header\n")
    assert f"element vertex {np.isfinite(depth).sum()}".encode() in header
    first = np.frombuffer(body, np.float32 if b"float x" in header else np.float64, count=3)
    assert first == pytest.approx([-30 / 60 * depth[0, 0], -25 / 50 * depth[0, 0], depth[0, 0]], rel=1e-5)


def test_the_same_image_gives_the_same_bytes(bundle: str, picture: str, tmp_path: Path) -> None:
    first, again = (digest(infer(tmp_path / name, picture, "--model", bundle)) for name in "ab")
    assert first == again
    sample = [
        digest(infer(tmp_path / s, picture, "--model", bundle, "--posterior", "sample", "--seed", s)) for s in "34"
    ]
    assert len({d["disparity.npy"] for d in [first, *sample]}) == 3


def test_options_reach_the_model(bundle: str, picture: str, tmp_path: Path) -> None:
    plain = digest(infer(tmp_path / "plain", picture, "--model", bundle))
    for option, value in (
        ("--sharpen-steps", "2"),
        ("--process-resolution", "40"),
        ("--dtype", "bfloat16"),
        ("--timestep-dtype", "float32"),
    ):
        changed = digest(infer(tmp_path / option, picture, "--model", bundle, option, value))
        assert changed["disparity.npy"] != plain["disparity.npy"], option
    assert list(digest(infer(tmp_path / "one", picture, "--model", bundle, "--tasks", "depth"))) == ["disparity.npy"]


def test_the_released_layout(shared: Path, picture: str, tmp_path: Path) -> None:
    folder = infer(tmp_path / "out", picture, "--model", str(shared / "golden" / "tiny-flux"), "--sharpen-steps", "2")
    assert sorted(digest(folder)) == ["disparity.npy", "normals.npy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "nothing.png: no such image file"),
        (["STREET", "STREET"], "expected images of different names"),
        (["BROKEN"], "not an image"),
        (["TINY"], "too small"),
        (["STREET", "--model", "nowhere"], "nowhere: no such folder"),
        (["STREET", "--dtype", "float8"], "expected one of auto, float32, bfloat16, float16, got 'float8'"),
        (["STREET", "--tasks", "depth,flow"], "expected a selection of auto, depth, normals, got ['depth', 'flow']"),
        (["STREET", "--sharpen-steps", "-1"], "expected 0 to 50, got -1"),
        (["STREET", "--intrinsics", "0,50,30,25"], "expected positive focal lengths, got fx=0"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    bundle: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    broken, tiny = tmp_path / "broken.jpg", tmp_path / "tiny.png"
    broken.write_bytes(b"no image")
    cv2.imwrite(str(tiny), np.zeros((7, 70, 3), np.uint8))
    files = {"STREET": picture, "BROKEN": str(broken), "TINY": str(tiny)}
    arguments = [files.get(argument, argument) for argument in arguments]
    if "--model" not in arguments:
        arguments += ["--model", bundle]
    assert main(["infer", *arguments, "--device", "cpu", "--output", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "WARN" not in line]
    assert line.startswith("lotus2 infer: ")
    assert message in line


def test_one_bad_image_costs_no_other(
    bundle: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "tiny.png"), np.zeros((7, 70, 3), np.uint8))
    images = [str(tmp_path / "broken.jpg"), str(tmp_path / "tiny.png"), picture]
    assert main(["infer", *images, "--model", bundle, "--device", "cpu", "--output", str(tmp_path / "out")]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "WARN" not in line]
    assert [line.partition(": ")[0] for line in lines] == ["skipped", "skipped", "lotus2 infer"]
    assert lines[-1] == "lotus2 infer: 2 of 3 images have no results"
    assert [folder.name for folder in (tmp_path / "out").iterdir() if folder.is_dir()] == ["street"]


def test_a_model_without_sharpener_says_so(
    bare: Lotus2, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_bundle(bare, tmp_path / "bare", metadata=METADATA, dtype=torch.float16)
    arguments = [picture, "--model", str(tmp_path / "bare"), "--sharpen-steps", "3", "--output", str(tmp_path / "out")]
    assert main(["infer", *arguments]) == 2
    assert "small has no detail sharpener" in capsys.readouterr().err


@pytest.mark.parametrize("intrinsics", ["1,2,3", "1,2,3,4,5", "a,b,c,d"])
def test_intrinsics_are_four_numbers(intrinsics: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["infer", "x.png", "--output", "out", "--intrinsics", intrinsics])
    assert f"expected fx,fy,cx,cy, four numbers in pixels, got '{intrinsics}'" in capsys.readouterr().err


def test_intrinsics_of_another_size_are_said(
    bundle: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [picture, "--model", bundle, "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["infer", *arguments, "--intrinsics", "5000,5000,3195,2395"]) == 0
    assert "K looks like that of an image of about 6391x4791" in capsys.readouterr().err
