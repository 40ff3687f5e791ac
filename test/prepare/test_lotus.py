"""`lotus2 prepare --lotus1`: from released folders of Lotus-D and Lotus-G to a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from lotus2_ros.cli import main
from lotus2_ros.model.load import load_model


@pytest.fixture
def released(shared, tmp_path):
    """Folders of both tasks, by the names of the released models."""
    for name in ("lotus-depth-g-v2-1-disparity", "lotus-normal-g-v1-1", "lotus-depth-g-v1-0"):
        shutil.copytree(shared / "golden" / "tiny-lotus-g", tmp_path / name)
    return tmp_path


def prepare(output, *options):
    return main(["prepare", "--output", str(output), *map(str, options)])


def test_both_tasks_in_one_bundle(released, tmp_path, capsys):
    folders = [released / "lotus-depth-g-v2-1-disparity", released / "lotus-normal-g-v1-1"]
    assert prepare(tmp_path / "bundle", "--lotus1", *folders) == 0
    assert "float32, 0.00 GB" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert manifest["family"] == "lotus-g" and manifest["tasks"] == ["depth", "normals"]
    assert manifest["predicts"] == "disparity" and manifest["precision"] == "float32"
    assert {"lotus-normal-g-v1-1/unet/config.json", "lotus-depth-g-v2-1-disparity/vae/config.json"} <= set(
        manifest["sources"]
    )
    names = {file.name for file in (tmp_path / "bundle").iterdir()}
    assert names == {"bundle.json", "vae.safetensors", "unet_depth.safetensors", "unet_normals.safetensors"}
    assert load_model(tmp_path / "bundle", device="cpu").tasks == ("depth", "normals")


def test_what_is_predicted_may_be_said(released, tmp_path):
    assert prepare(tmp_path / "old", "--lotus1", released / "lotus-depth-g-v1-0") == 0
    assert json.loads((tmp_path / "old" / "bundle.json").read_text())["predicts"] == "depth"
    assert prepare(tmp_path / "said", "--lotus1", f"disparity={released / 'lotus-depth-g-v1-0'}") == 0
    assert json.loads((tmp_path / "said" / "bundle.json").read_text())["predicts"] == "disparity"


def test_the_answer_is_that_of_the_folder(released, tmp_path):
    folder = released / "lotus-depth-g-v2-1-disparity"
    assert prepare(tmp_path / "bundle", "--lotus1", folder, "--precision", "bfloat16") == 0
    ours, theirs = (load_model(place, device="cpu", dtype="float32") for place in (tmp_path / "bundle", folder))
    latent = torch.rand(1, 4, 6, 8)
    found, expected = (model.predict(latent, ("depth",))["depth"] for model in (ours, theirs))
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.02


def test_it_goes_on_where_it_was_killed(released, tmp_path, monkeypatch):
    folder = released / "lotus-depth-g-v2-1-disparity"
    assert prepare(tmp_path / "whole", "--lotus1", folder) == 0
    written: list[str] = []

    def interrupted(self, name, tensors, write=None):
        if written:
            raise KeyboardInterrupt
        written.append(name)
        original(self, name, tensors)

    from lotus2_ros.prepare.work import Work

    original = Work.write
    monkeypatch.setattr(Work, "write", interrupted)
    assert prepare(tmp_path / "again", "--lotus1", folder) != 0
    assert written == ["bundle/vae.safetensors"]
    monkeypatch.setattr(Work, "write", original)
    assert prepare(tmp_path / "again", "--lotus1", folder) == 0
    for file in sorted((tmp_path / "whole").iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    assert not (tmp_path / "again.part").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{dir}/lotus-depth-g-v1-0", "{dir}/lotus-depth-g-v2-1-disparity"], "expected one folder for depth, got"),
        (["{dir}/nothing"], "nothing: expected a name that says what it predicts"),
        (["{dir}/lotus-depth-nothing"], "expected a folder or a name on the hub"),
        (["inverse={dir}/lotus-depth-g-v1-0"], "expected normals, disparity, depth before '=', got 'inverse'"),
        (["{dir}/lotus-depth-g-v1-0", "--precision", "nf4"], "expected a precision of float32, bfloat16, float16"),
        (["{dir}/lotus-depth-g-v1-0", "--tasks", "normals"], "expected folders for normals, got depth"),
        (["{dir}/lotus-depth-g-v1-0", "--bundle", "B"], "or --lotus1 alone"),
    ],
)
def test_bad_options_are_told_in_one_line_and_leave_nothing(released, tmp_path, capsys, options, message):
    options = [option.replace("{dir}", str(released)) for option in options]
    assert prepare(tmp_path / "bundle", "--lotus1", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(Path(tmp_path).glob("bundle*"))
