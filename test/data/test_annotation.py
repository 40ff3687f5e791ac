import pytest
import torch

from lotus2_ros.data.annotation import disparity_annotation, mirror, normals_annotation, renormalize


def test_disparity_puts_the_quantiles_at_minus_one_and_one_and_the_sky_far():
    depth = torch.linspace(1, 50, 10_000).reshape(100, 100)
    depth[0] = torch.inf
    annotation, valid, shift = disparity_annotation(depth)
    assert annotation.shape == (3, 100, 100) and (annotation[0] == annotation[2]).all() and valid.all()
    assert (annotation[0, 0] == -1).all()
    inside = annotation[0].abs() < 1
    assert inside.float().mean() == pytest.approx(0.96, abs=0.011)
    slope = (annotation[0][inside] - annotation[0][inside].mean()) / (1 / depth[inside] - (1 / depth[inside]).mean())
    torch.testing.assert_close(slope, slope.mean().expand_as(slope), rtol=1e-2, atol=0)
    factor = ((annotation[0] + 1) / 2 + shift)[inside] * depth[inside]
    torch.testing.assert_close(factor, factor.mean().expand_as(factor), rtol=1e-4, atol=0)


def test_unknown_depth_is_not_valid_and_moves_nothing():
    depth = torch.linspace(1, 50, 6_000).reshape(60, 100)
    holes = torch.cat((depth, torch.full((40, 100), torch.nan)))
    holes[-1] = 0
    annotation, valid, _ = disparity_annotation(holes)
    assert valid[:60].all() and not valid[60:].any()
    assert torch.equal(annotation[:, :60], disparity_annotation(depth)[0])
    with pytest.raises(ValueError, match="valid pixels, got none"):
        disparity_annotation(torch.full((4, 5), torch.nan))


def test_normals_are_in_the_models_axes():
    normals = torch.tensor([[[1.0, 0, 0], [0, -1, 0], [torch.nan] * 3]])
    expected = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, 1]])  # x left, y up, z toward the camera
    annotation, valid = normals_annotation(normals)
    assert torch.equal(annotation[:, 0].T, expected) and valid.tolist() == [[True, True, False]]
    assert normals_annotation(normals, torch.tensor([[False, False, True]]))[1].all()


def test_mirroring_a_normal_exchanges_left_and_right():
    left_and_up = torch.tensor([0.6, 0.8, 0.0])[None, :, None, None].expand(1, 3, 2, 5).clone()
    left_and_up[..., 0] = torch.tensor([0.0, 0, 1])[:, None]
    mirrored = mirror(left_and_up, "normals")
    assert torch.equal(mirrored[0, :, 0, 0], torch.tensor([-0.6, 0.8, 0.0]))
    assert torch.equal(mirrored[0, :, 0, 4], torch.tensor([0.0, 0, 1]))
    assert torch.equal(mirror(left_and_up, "depth"), left_and_up.flip(-1))


def test_a_part_in_its_own_range_is_what_its_depth_alone_would_give():
    depth = torch.rand(30, 40, generator=torch.Generator().manual_seed(0)) * 6 + 1
    depth[:2] = 20  # the far end is in the part too
    depth[:, :2] = 0.5
    depth[4, 5] = torch.nan
    whole, valid, shift = disparity_annotation(depth)
    rows, columns = slice(3, 20), slice(4, 31)
    part, known, part_shift = disparity_annotation(depth[rows, columns])
    found, its_shift = renormalize(whole[None, :, rows, columns], valid[None, None, rows, columns], shift[None])
    torch.testing.assert_close(found[0][:, known], part[:, known], atol=1e-4, rtol=0)
    torch.testing.assert_close(its_shift, part_shift[None], rtol=1e-4, atol=0)
