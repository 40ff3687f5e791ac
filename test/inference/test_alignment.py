"""What the alignment asks of a GPU: on a pretended one, because there may be none."""

from __future__ import annotations

import pytest
import torch
from card import DEVICE, CardTensor, PretendCard
from torch import Tensor

from lotus2_ros.config import Config
from lotus2_ros.geometry.camera import Camera
from lotus2_ros.inference.alignment import align, align_sharp
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.model.engine.device import Stopwatch
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import relative_scale

HEIGHT, WIDTH, FRAMES = 96, 128, 4
REFERENCES = {"none": "", "points": "reference_points", "depth": "reference_depth"}


def scene() -> tuple[Tensor, Tensor, Camera]:
    """Depth of a slope and its normals."""
    camera = Camera.from_intrinsics(WIDTH, HEIGHT, 110, 115, 60, 50)
    normal = torch.nn.functional.normalize(torch.tensor([0.1, -0.6, -1.0]), dim=0)
    depth = -3 / (camera.rays @ normal)
    return depth, normal.expand(HEIGHT, WIDTH, 3).contiguous(), camera


@torch.inference_mode()
def frames(on_card: bool) -> list[Geometry]:
    depth, normals, camera = scene()
    generator = torch.Generator().manual_seed(0)
    place = CardTensor if on_card else (lambda tensor: tensor)
    if on_card:
        camera = Camera(WIDTH, HEIGHT, camera.K)
        object.__setattr__(camera, "rays", CardTensor(camera.rays))
    image = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    disparity = (1 / depth - 0.1) / 0.5
    disparity = disparity * (1 + 0.02 * torch.randn(HEIGHT, WIDTH, generator=generator))
    found = Annotations(disparity=place(disparity), normals=place(normals), uncertainty=place(0.1 * disparity))
    stopwatch = Stopwatch(torch.device("cpu"))
    return [Geometry(place(image), camera, "core", relative_scale(), found, stopwatch) for _ in range(FRAMES)]


def reference(kind: str, stamp: float) -> Reference | None:
    depth = scene()[0]
    if kind == "points":
        depth = torch.where(
            torch.rand(depth.shape, generator=torch.Generator().manual_seed(1)) < 0.05, depth, torch.nan
        )
    return Reference(depth, stamp, REFERENCES[kind]) if kind != "none" else None


def run(kind: str, on_card: bool, card: PretendCard, *, every: int = 1) -> tuple[Geometry, list[str], int]:
    """The last of some frames, its waits, and its operations on the card."""
    scale_filter, config, result = ScaleFilter(), Config(), None
    for number, geometry in enumerate(frames(on_card)):
        card.waits.clear()
        card.launches = 0
        given = reference(kind, number * 0.1) if number % every == 0 else None
        result = align(geometry, given, scale_filter, number * 0.1, config, with_sigma=True)
    assert result is not None
    return result, card.waits[:], card.launches


@pytest.mark.parametrize(
    ("kind", "every", "waits"), [("none", 1, 2), ("depth", FRAMES, 1), ("points", 1, 1), ("depth", 1, 1)]
)
def test_a_frame_waits_once_for_the_gpu(card: PretendCard, kind: str, every: int, waits: int) -> None:
    """Twice where the normals give the shift; it asks little of it; and the result is that of the CPU."""
    expected, _, _ = run(kind, False, card, every=every)
    with card:
        found, waited, launches = run(kind, True, card, every=every)
        assert waited == waits * ["to_host"] and launches < 50
        assert repr(found.scale) == repr(expected.scale)  # where there is no reference, parts are NaN
        assert found.scale.metric == (kind != "none")
        assert isinstance(found.depth, CardTensor) and isinstance(found.sky, CardTensor)
        torch.testing.assert_close(found.depth.held, expected.depth)
        assert (found.sigma is None) == (kind == "none")
        assert card.waits == waited  # depth and its deviation wait for nothing
        if found.sigma is not None:
            torch.testing.assert_close(found.sigma.held, expected.sigma)


def test_a_sharp_result_waits_for_the_fit_alone(card: PretendCard) -> None:
    """For the coarse depth and for the sharp disparity; with a local field, too."""

    def sharpened(on_card: bool) -> Geometry:
        coarse, _, _ = run("points", on_card, card)
        assert coarse.scale.local is not None
        disparity = coarse.annotations.disparity
        assert disparity is not None
        card.waits.clear()
        return align_sharp(coarse, Annotations(disparity=0.9 * disparity + 0.05), sky=True)

    expected = sharpened(False)
    with card:
        found = sharpened(True)
        assert card.waits == 2 * ["to_host"] and isinstance(found.depth, CardTensor)
        torch.testing.assert_close(found.depth.held, expected.depth)


def test_the_card_notices_what_waits(card: PretendCard) -> None:
    there, here = CardTensor(torch.arange(6.0)), torch.arange(6.0)
    with card:
        assert isinstance(there + 1, CardTensor) and not card.waits
        for wait in (lambda: float(there.sum()), lambda: there[there > 2], there.nanmedian, there.cpu,
                     lambda: here.to(DEVICE), lambda: there[torch.tensor([1])]):  # fmt: skip
            card.waits.clear()
            wait()
            assert len(card.waits) == 1
        with pytest.raises(RuntimeError, match="one device"):
            there + here
