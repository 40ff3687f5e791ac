import pytest
import torch
from card import DEVICE, CardTensor, PretendCard
from torch import Tensor

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


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> PretendCard:
    """Its copies from pinned memory do not wait, and several copies to the host wait once."""
    card = PretendCard()

    def to_host(*tensors: Tensor) -> list[Tensor]:
        if any(isinstance(each, CardTensor) for each in tensors):
            card.waits.append("to_host")
        return [each.held.clone() if isinstance(each, CardTensor) else each for each in tensors]

    def upload(tensor: Tensor, device: torch.device) -> Tensor:
        return CardTensor(tensor) if device == DEVICE else tensor

    for name in ("tracker", "planes", "scale", "reference"):
        monkeypatch.setattr(f"lotus2_ros.scale.{name}.to_host", to_host)
    for name in ("scale.scale", "scale.spread", "scale.spread_calibration", "inference.estimator"):
        monkeypatch.setattr(f"lotus2_ros.{name}.upload", upload)
    return card
