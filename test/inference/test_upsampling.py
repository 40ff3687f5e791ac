import pytest
import torch

from lotus2_ros.inference.upsampling import guided_upsample


def gray(values):
    return (255 * values).round().byte()[..., None].expand(-1, -1, 3)


def test_a_flat_image_changes_nothing_of_a_plane():
    across = torch.linspace(0.2, 0.8, 40).expand(30, -1)
    found = guided_upsample(across[None, None], gray(torch.full((30, 40), 0.5)))[0, 0]
    assert found.shape == (30, 40)
    torch.testing.assert_close(found[:, 10:-10], across[:, 10:-10])


def test_faint_texture_does_not_get_into_depth(generator):
    texture = 0.5 + 0.04 * (torch.rand(120, 160, generator=generator) - 0.5)
    found = guided_upsample(torch.full((1, 1, 30, 40), 0.4), gray(texture))
    torch.testing.assert_close(found, torch.full((1, 1, 120, 160), 0.4))
    slope = torch.linspace(0.3, 0.5, 40).expand(1, 1, 30, -1)
    rough = (guided_upsample(slope, gray(texture)) - guided_upsample(slope, gray(torch.full((120, 160), 0.5)))).abs()
    assert float(rough.max()) < 0.002


@pytest.mark.parametrize("size", [(30, 40), (121, 163), (7, 9)])
def test_any_size_and_values_in_0_to_1(size, generator):
    picture = torch.rand(1, 1, 30, 40, generator=generator).round()
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    found = guided_upsample(picture, image)
    assert found.shape == (1, 1, *size) and float(found.min()) >= 0 and float(found.max()) <= 1
