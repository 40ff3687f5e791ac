"""test/data is what is in the larger set, where that is there."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lotus2_ros.bags import open_recording

DATA = Path(__file__).parent / "data"
LORA = [f"lotus-2_{part}_{task}" for part in ("core_predictor", "detail_sharpener") for task in ("depth", "normal")]


def test_the_folder_stays_small():
    assert sum(file.stat().st_size for file in (DATA / "golden").rglob("*") if not file.is_symlink()) < 12e6


@pytest.mark.larger_set
def test_reference_outputs_are_those_of_the_larger_set(shared):
    files = [*DATA.glob("golden/reference*/*.safetensors")]
    assert len(files) == 6
    for file in files:
        theirs = load_file(shared / file.relative_to(DATA))
        for name, tensor in load_file(file).items():
            assert torch.equal(tensor.to(theirs[name].dtype), theirs[name]), (file, name)


@pytest.mark.parametrize("name", LORA)
def test_adapters_are_those_of_the_larger_set(name, shared):
    """Their products; where there is no larger set, of the pairs that conftest.py wrote."""
    pairs = load_file(shared / f"golden/tiny-flux/{name}.safetensors")
    products = load_file(DATA / f"golden/tiny-flux/{name}.safetensors")
    assert len(pairs) == 2 * len(products)
    for key, product in products.items():
        a, b = (pairs[key.replace("product", side)] for side in "AB")
        assert a.shape[0] == b.shape[1] == (256 if "normal" in name else 128)
        torch.testing.assert_close(b.double() @ a.double(), product.double(), rtol=0, atol=1e-6)


def test_the_recorded_frame_is_complete():
    folder = DATA / "frames" / "indoor_tum_rgbd_open3d"
    (frame,) = open_recording([folder]).frames()
    assert (frame.image.height, frame.image.width) == (480, 640) and frame.reference is not None
    assert "CC BY 4.0" in (folder / "SOURCE.txt").read_text() and (folder / "ATTRIBUTION.md").is_file()
