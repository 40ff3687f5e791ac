import pytest
import torch

from lotus2_ros.inference.upsampling import BY_COLOR, BY_GRAY, guided_upsample


def gray(values):
    return (255 * values).round().byte()[..., None].expand(-1, -1, 3)


def test_a_flat_image_changes_nothing_of_a_plane():
    across = torch.linspace(0.2, 0.8, 40).expand(30, -1)
    found = guided_upsample(across[None, None], gray(torch.full((30, 40), 0.5)), BY_GRAY)[0, 0]
    assert found.shape == (30, 40)
    torch.testing.assert_close(found[:, 10:-10], across[:, 10:-10])


def test_faint_texture_does_not_get_into_depth(generator):
    texture = 0.5 + 0.04 * (torch.rand(120, 160, generator=generator) - 0.5)
    found = guided_upsample(torch.full((1, 1, 30, 40), 0.4), gray(texture), BY_GRAY)
    torch.testing.assert_close(found, torch.full((1, 1, 120, 160), 0.4))
    slope = torch.linspace(0.3, 0.5, 40).expand(1, 1, 30, -1)
    plain = gray(torch.full((120, 160), 0.5))
    rough = (guided_upsample(slope, gray(texture), BY_GRAY) - guided_upsample(slope, plain, BY_GRAY)).abs()
    assert float(rough.max()) < 0.002


def test_the_sharpeners_depth_follows_fainter_edges():
    picture = torch.cat((torch.full((1, 1, 30, 20), 0.2), torch.full((1, 1, 30, 20), 0.8)), dim=3)
    image = gray(torch.cat((torch.full((120, 80), 0.45), torch.full((120, 80), 0.55)), dim=1))
    core, sharp = (guided_upsample(picture, image, each)[0, 0] for each in (BY_GRAY, BY_COLOR))
    step = [float(depth[60, 80] - depth[60, 79]) for depth in (core, sharp)]
    assert 0.1 < 1.4 * step[0] < step[1] < 0.6


def test_the_sharpeners_depth_follows_edges_between_colors_of_one_brightness():
    picture = torch.cat((torch.full((1, 1, 30, 20), 0.2), torch.full((1, 1, 30, 20), 0.8)), dim=3)
    image = torch.tensor([[150, 90, 90]], dtype=torch.uint8).repeat(120, 160, 1)
    image[:, 80:] = torch.tensor([50, 140, 95], dtype=torch.uint8)  # gray 108 both
    core, sharp = (guided_upsample(picture, image, each)[0, 0] for each in (BY_GRAY, BY_COLOR))
    step = [float(depth[60, 80] - depth[60, 79]) for depth in (core, sharp)]
    assert step[0] < 0.1 and step[1] > 0.4


@pytest.mark.parametrize("guidance", [BY_GRAY, BY_COLOR], ids=["gray", "color"])
@pytest.mark.parametrize("size", [(30, 40), (121, 163), (7, 9)])
def test_any_size_and_values_in_0_to_1(size, guidance, generator):
    picture = torch.rand(1, 1, 30, 40, generator=generator).round()
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    found = guided_upsample(picture, image, guidance)
    assert found.shape == (1, 1, *size) and float(found.min()) >= 0 and float(found.max()) <= 1
