"""A filter that was saved goes on as if it had not been."""

from __future__ import annotations

import io

import pytest
import torch

from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.saved import restored, saved
from lotus2_ros.scale.scale import RelativeGeometry

CONFIG = ScaleConfig(local_field=True)


def frames(count):
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8, generator=generator)
    for index in range(count):
        disparity = torch.rand((48, 64), generator=generator)
        reference = Reference(1 / (0.3 * disparity + 0.1), stamp=index * 0.1) if index % 3 == 0 else None
        yield RelativeGeometry(disparity, picture.roll(index, 1), stamp=index * 0.1), reference


@torch.inference_mode()
def test_it_goes_on_exactly_after_a_file():
    kept, other = ScaleFilter(), ScaleFilter()
    for index, (frame, reference) in enumerate(frames(12)):
        if index == 7:
            file = io.BytesIO()
            torch.save(saved(other), file)
            file.seek(0)
            other = restored(torch.load(file, weights_only=True))
        first, second = kept.align(frame, reference, CONFIG), other.align(frame, reference, CONFIG)
        assert first == second and first.metric
        assert torch.equal(first.depth_of(frame.disparity), second.depth_of(frame.disparity))


def test_nothing_but_our_own_classes_is_made():
    with pytest.raises(ValueError, match=r"got subprocess:Popen"):
        restored({"object": "subprocess:Popen", "fields": {}})
    with pytest.raises(ValueError, match="expected a scale filter, got Reference"):
        restored({"object": "lotus2_ros.scale.reference:Reference", "fields": {}})
    with pytest.raises(ValueError, match="of this version"):
        restored({"object": "lotus2_ros.scale.filter:Vanished", "fields": {}})
