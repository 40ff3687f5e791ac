"""What every test may use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from domains import claimed_domain
from forks import Forks
from hypothesis import settings
from safetensors.torch import load_file, save_file

from lotus2_ros.demo.deadlines import allowed

if TYPE_CHECKING:
    from lotus2_ros.model.lotus2.trainable import TrainableLotus2

ROOT = Path(__file__).parents[1]
LARGER_SET = Path(os.environ.get("LOTUS2_SHARED", ROOT.parent / "shared"))

# Three levels: a factor of 4 and a multiple of 8, where the released model has 8 and 16.
VAE = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
}
TRANSFORMER = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "pooled_projection_dim": 4,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 6, 6),
}
SCHEDULER = {"num_train_timesteps": 10, "use_dynamic_shifting": True, "shift": 3.0}

PRIOR = {"backbone": "efficientnet-lite0", "hidden": 12, "channels": 3, "patch": 2}

# The same examples every time, and no limit on the time of one: CI machines stall.
settings.register_profile("deterministic", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("deterministic")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that workers end together; then those of nodes.

    Without the larger set, test/data has one case of each kind and there are no others.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    nodes = {item.path for item in items if item.get_closest_marker("ros")}
    items.sort(key=lambda item: (item.path not in slow, item.path not in nodes))
    if not LARGER_SET.is_dir():
        more = [item for item in items if item.get_closest_marker("larger_set")]
        config.hook.pytest_deselected(items=more)
        items[:] = [item for item in items if item not in more]


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test's limit, of pyproject.toml or of its own mark, is that of a quiet machine."""
    own = item.get_closest_marker("timeout")
    seconds = own.args[0] if own else float(item.config.getini("timeout"))
    item.add_marker(pytest.mark.timeout(allowed(seconds)), append=False)
    yield


@pytest.fixture(scope="session", autouse=True)
def domain_of_programs() -> Iterator[None]:
    """For programs that a test starts without a domain of their own."""
    with claimed_domain() as domain, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """For programs whose imports are not the point of a test."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``golden/`` and ``data/``: outputs of the public implementations and recorded frames, see test/data/README.md.

    The larger set is beside the project or at LOTUS2_SHARED; without it this is what test/data holds.
    """
    if LARGER_SET.is_dir():
        return LARGER_SET
    folder = tmp_path_factory.mktemp("shared")
    unpack_golden(ROOT / "test" / "data" / "golden", folder / "golden")
    (folder / "data").symlink_to(ROOT / "test" / "data" / "frames")
    return folder


@pytest.fixture
def released(shared: Path, tmp_path: Path) -> Path:
    """A copy of the tiny released layout to break; links, so replace files rather than write into them."""
    shutil.copytree(shared / "golden" / "tiny-flux", tmp_path / "released", copy_function=os.symlink)
    return tmp_path / "released"


def unpack_golden(source: Path, target: Path) -> None:
    """Links to the files of test/data/golden, and LoRA pairs A, B of the released rank in place of their products."""
    shutil.copytree(source, target, copy_function=os.symlink)
    for packed in target.glob("tiny-flux/lotus-2_[cd]*.safetensors"):  # core predictors and detail sharpeners
        rank, products = 256 if "normal" in packed.name else 128, load_file(packed)
        pairs = {}
        for key, product in products.items():
            height, width = product.shape
            size = min(height, width)
            a, b = torch.zeros(rank, width), torch.zeros(height, rank)
            a[:size] = torch.eye(size) if width == size else product
            b[:, :size] = product if width == size else torch.eye(size)
            pairs |= {key.replace("product", "A"): a, key.replace("product", "B"): b}
        packed.unlink()
        save_file(pairs, packed)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def build_bare(prior: dict[str, object] | None = None) -> TrainableLotus2:
    # These take seconds to import, and most tests do not need them.
    from lotus2_ros.model.lotus2.trainable import TrainableLotus2
    from lotus2_ros.model.manifest import ModelSettings

    torch.manual_seed(0)
    configs = {"vae": VAE, "transformer": TRANSFORMER, "scheduler": SCHEDULER}
    if prior is not None:
        channels = {"in_channels": 16 + 4 * prior["channels"], "out_channels": 16}
        configs |= {"transformer": TRANSFORMER | channels, "prior": prior}
    settings = ModelSettings(tasks=("depth", "normals"), process_resolution=64)
    return TrainableLotus2.from_config(configs, settings, prompt_tokens=2)


def build_small(prior: dict[str, object] | None = None) -> TrainableLotus2:
    from lotus2_ros.model.lotus2.base import CORE, SHARPENER

    model = build_bare(prior)
    model.add_adapter(CORE, "normals", rank=4)
    model.add_adapter(SHARPENER, "depth", rank=4, alpha=8)
    model.add_adapter(SHARPENER, "normals", rank=2)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def with_head(model: TrainableLotus2) -> TrainableLotus2:
    """The model with a random uncertainty head, which changes nothing else of it."""
    from lotus2_ros.model.lotus2.uncertainty import UncertaintyHead

    torch.manual_seed(0)
    model.uncertainty = UncertaintyHead({"width": 5}, model.latent_channels)
    for parameter in model.uncertainty.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


@pytest.fixture
def bare() -> TrainableLotus2:
    """A small random model without adapters, in training mode."""
    return build_bare()


@pytest.fixture
def small() -> TrainableLotus2:
    """The base as the core predictor of depth, three adapters, every weight random; in evaluation mode."""
    return build_small()


@pytest.fixture
def with_prior() -> TrainableLotus2:
    """The same with an image prior, random too."""
    return build_small(PRIOR)


@pytest.fixture
def with_uncertainty() -> TrainableLotus2:
    """With an image prior, and an uncertainty head too."""
    return with_head(build_small(PRIOR))


@pytest.fixture(scope="session")
def bundle_with_uncertainty(tmp_path_factory) -> Path:
    """The model of `random_bundle` with an uncertainty head."""
    from lotus2_ros.model.lotus2.bundle import save_bundle

    folder = tmp_path_factory.mktemp("bundle_with_uncertainty")
    save_bundle(with_head(build_small()), folder, metadata={"name": "random", "licence": "none"}, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory) -> Path:
    """The small random model on disk."""
    from lotus2_ros.model.lotus2.bundle import save_bundle

    folder = tmp_path_factory.mktemp("bundle")
    save_bundle(build_small(), folder, metadata={"name": "random", "licence": "none"}, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def bundle_with_prior(tmp_path_factory) -> Path:
    from lotus2_ros.model.lotus2.bundle import save_bundle

    folder = tmp_path_factory.mktemp("bundle_with_prior")
    metadata = {"name": "random", "licence": "none", "card": "README.md"}
    save_bundle(build_small(PRIOR), folder, metadata=metadata, dtype=torch.float32)
    return folder


class Writer:
    """Writes files into a folder, by their path in it, in the formats of data sets, as their makers' tools do."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def rgb(self, name: str, image: np.ndarray) -> None:
        import cv2

        assert cv2.imwrite(str(self.path(name)), image[..., ::-1])

    def plain(self, name: str, height: int, width: int, color: tuple[int, int, int] = (10, 120, 240)) -> None:
        """One color, which also JPEG keeps."""
        self.rgb(name, np.full((height, width, 3), color, np.uint8))

    def png16(self, name: str, values: np.ndarray) -> None:
        import cv2

        assert cv2.imwrite(str(self.path(name)), values.astype(np.uint16))

    def npy(self, name: str, values: np.ndarray) -> None:
        np.save(self.path(name), values)

    def exr(self, name: str, values: np.ndarray) -> None:
        import OpenEXR

        channels = {letter: np.ascontiguousarray(values[..., i], np.float32) for i, letter in enumerate("RGB")}
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, channels).write(str(self.path(name)))

    def hdf5(self, name: str, values: np.ndarray) -> None:
        import h5py

        with h5py.File(self.path(name), "w") as file:
            file.create_dataset("dataset", data=values.astype(np.float16), compression="gzip")


@pytest.fixture
def write(tmp_path) -> Writer:
    return Writer(tmp_path)
