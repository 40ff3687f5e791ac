"""A damaged bundle.json either still loads or is a CheckpointError in one line that names the file."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lotus2_ros.model.load import load_model
from lotus2_ros.model.manifest import MANIFEST, write_manifest
from lotus2_ros.model.weights import CheckpointError

pytestmark = pytest.mark.slow

METADATA = {"name": "random", "licence": "none"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(-3, 70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module", params=["format 1", "format 2", "lotus-g"])
def bundle(request, random_bundle, tmp_path_factory) -> Path:
    if request.param == "format 1":
        return random_bundle
    folder = tmp_path_factory.mktemp("bundle")
    if request.param == "lotus-g":
        from lotus2_ros.model.lotus.networks import UnetNetwork

        network = UnetNetwork(
            source="unet", generative=True, vae_widths=(8, 8), vae_groups=2, latent_channels=4, widths=(8, 16),
            layers=1, heads=2, groups=4, process_resolution=40,
        )  # fmt: skip
        network.save(network.build(("depth", "normals"), (), torch.device("cpu")), folder, METADATA)
        return folder
    from fused import write_fused

    from lotus2_ros.model.lotus2.bundle import load_bundle

    return write_fused(load_bundle(random_bundle, device=torch.device("cpu"), dtype=torch.float32), folder, "int8")


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value in a JSON document, the document's own left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in ((*path, key), *places(item, (*path, key)))]


def loads_or_says_why(folder: Path, text: bytes) -> None:
    file = folder / MANIFEST
    before = file.read_bytes()
    file.write_bytes(text)
    try:
        load_model(folder, device="cpu", dtype="float32")
    except CheckpointError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
    finally:
        file.write_bytes(before)


@settings(max_examples=60)
@given(data=st.data())
def test_any_value_of_another_kind(bundle, data):
    manifest = json.loads((bundle / MANIFEST).read_text())
    changed = deepcopy(manifest)
    path = data.draw(st.sampled_from(places(manifest)))
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    if data.draw(st.booleans()):
        del holder[path[-1]]
    else:
        holder[path[-1]] = data.draw(JSON)
    loads_or_says_why(bundle, json.dumps(changed).encode())


@settings(max_examples=25)
@given(data=st.data())
def test_any_bytes(bundle, data):
    text = bytearray((bundle / MANIFEST).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=3)):
        text[place] = data.draw(st.integers(0, 255))
    loads_or_says_why(bundle, bytes(text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans()) else text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process_resolution": "160"}, "process_resolution: expected a valid integer, got '160'"),
        ({"process_resolution": 0}, "process_resolution: expected greater than or equal to 1, got '0'"),
        ({"process_by_area": 1}, "process_by_area: expected a valid boolean, got '1'"),
        ({"sharpener_steps": 2.5}, "sharpener_steps: expected a valid integer, got '2.5'"),
        ({"tasks": ["depth", "color"]}, "tasks.1: expected depth or normals, got 'color'"),
        ({"tasks": []}, "tasks: "),
        ({"components": []}, "components: expected an object, got '[]'"),
    ],
)
def test_the_key_the_expected_and_the_given_value_are_named(random_bundle, tmp_path, change, message):
    manifest = json.loads((random_bundle / MANIFEST).read_text())
    write_manifest(tmp_path, manifest | change)
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path, device="cpu")
    assert str(error.value).startswith(f"{tmp_path / MANIFEST}: {message}")


@pytest.mark.parametrize(
    ("component", "change", "message"),
    [
        ("vae", {"block_out_channels": [8, "16"]}, "block_out_channels.1: expected a valid integer, got '16'"),
        ("vae", {"force_upcast": "no"}, "force_upcast: expected a valid boolean, got 'no'"),
        ("transformer", {"num_layers": 10**9}, "num_layers: expected less than or equal to 512, got '1000000000'"),
        (
            "transformer",
            {"axes_dims_rope": [4, 6, 8]},
            "expected three even transformer.axes_dims_rope that add up to 16",
        ),
        ("scheduler", {"base_shift": "0.5"}, "base_shift: expected a valid number, got '0.5'"),
        ("scheduler", {"color": 1}, "unknown key components.scheduler.color"),
    ],
)
def test_the_configs_of_components_are_checked_too(random_bundle, tmp_path, component, change, message):
    manifest = json.loads((random_bundle / MANIFEST).read_text())
    manifest["components"][component] |= change
    write_manifest(tmp_path, manifest)
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path, device="cpu")
    assert str(error.value).startswith(f"{tmp_path / MANIFEST}: ") and "components" in str(error.value)
    assert message in str(error.value)
