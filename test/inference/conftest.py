import pytest
import torch

from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.estimator import Estimator

HEIGHT, WIDTH = 37, 53


@pytest.fixture
def estimator(small) -> Estimator:
    return Estimator(small, Config())


@pytest.fixture(scope="session")
def image() -> torch.Tensor:
    return torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def camera() -> Camera:
    return Camera.from_intrinsics(WIDTH, HEIGHT, 40.0, 45.0, 20.0, 15.0)
