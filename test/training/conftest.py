"""Networks that train in seconds, and data that they can learn from."""

import numpy as np
import pytest
import torch

from lotus2_ros.model.lotus2.networks import ScratchNetwork
from lotus2_ros.training.batches import Batch
from lotus2_ros.training.config import TrainingConfig
from lotus2_ros.training.rendered import RenderedGroup, quantize


@pytest.fixture(scope="session")
def network() -> ScratchNetwork:
    return ScratchNetwork(
        source="scratch", vae_widths=(8, 8, 16), vae_groups=2, latent_channels=4, heads=2, head_size=16,
        rotary_axes=(4, 6, 6), double_blocks=1, single_blocks=1, prompt_tokens=2, core_rank=4, sharpener_rank=2,
        process_resolution=40, sharpener_steps=2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def group() -> RenderedGroup:
    """Six smooth pictures of 32 x 40 with a depth and normals that follow from them."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(6, 3, 4, 5, generator=generator), (32, 40), mode="bilinear")
    image = smooth * 1.9 - 0.95
    fields = {"image": image, "depth": -image[:, :1], "normals": image.flip(1)}
    stored = {name: torch.from_numpy(quantize(values, name)) for name, values in fields.items()}
    return RenderedGroup(1.0, stored, shift=torch.linspace(0.05, 0.3, 6))


@pytest.fixture(scope="session")
def batch(group):
    def make(task: str) -> Batch:
        return Batch(task, *group.read([0, 3], task), seed=5)

    return make


@pytest.fixture(scope="session")
def golden(shared):
    return shared / "golden" / "tiny-flux"


@pytest.fixture
def run_of(golden, write):
    """(objectives..., changes) -> a run of two steps of each on a room of Hypersim's."""
    generator = np.random.default_rng(0)
    for number in range(3):
        geometry = f"ai_001_002/images/scene_cam_00_geometry_hdf5/frame.{number:04d}"
        image = generator.integers(0, 255, (32, 48, 3)).astype(np.uint8)
        write.rgb(f"ai_001_002/images/scene_cam_00_final_preview/frame.{number:04d}.tonemap.jpg", image)
        write.hdf5(f"{geometry}.depth_meters.hdf5", generator.uniform(1, 9, (32, 48)))
        write.hdf5(f"{geometry}.normal_cam.hdf5", generator.normal(size=(32, 48, 3)))

    def make(*objectives, tasks=("depth",), lotus2=None, base_dtype="float32", **changes):
        precision = "bf16" if base_dtype == "bfloat16" else "no"
        stages = [
            {
                "name": objective["kind"], "objective": objective, "steps": 2, "batch": 2, "learning_rate": 1e-3,
                "weight_decay": 0.0, "schedule": "constant", "mixed_precision": precision,
            }
            for objective in objectives
        ]  # fmt: skip
        flux = {"source": "released", "flux": golden, "lotus2": lotus2, "base_dtype": base_dtype}
        data = [{"name": "hypersim", "folder": write.root, "size": (32, 48), "weight": 0.9}]
        return TrainingConfig(
            name="tiny", licence="none", seed=1, tasks=tasks, stages=stages, jitter=False,
            network=flux | {"ranks": {"depth": 128, "normals": 256}}, data={"source": "recorded", "sets": data},
            report_every=1, checkpoint_every=1, panels_every=2, **changes,
        )  # fmt: skip

    return make
