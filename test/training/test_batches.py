import pytest
import torch

from lotus2_ros.training.augment import COMPRESSED, degrade, jitter, mix_convolved
from lotus2_ros.training.batches import Batches, window
from lotus2_ros.training.rendered import RenderedGroup


def batches(groups, **changes):
    return Batches(groups, ("depth", "normals"), 4, **{"multiple": 8, "seed": 1, **changes})


def equal(first, second):
    fields = "image", "annotation", "valid", "shift"
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in fields)


def test_a_batch_is_the_same_whenever_it_is_made(group):
    some = batches([group])
    later = some[7]
    some[3]
    again = batches([group])[7]
    assert equal(later, again) and later.seed == again.seed and later.task == again.task
    assert not equal(later, batches([group])[9]) and later.seed != some[9].seed


def test_seeds_and_processes_see_other_batches(group):
    first = batches([group])[0]
    assert not equal(first, batches([group], seed=2)[0]) and not equal(first, batches([group], rank=1)[0])


def test_tasks_take_turns(group):
    assert [batches([group])[number].task for number in range(4)] == ["depth", "normals"] * 2


def test_mirrored_halves_keep_image_and_annotation_together(group):
    """In the group's views depth = - red, so that they show whether they went together."""
    mirrored = 0
    for number in range(0, 20, 2):
        batch = batches([group], jitter=False)[number]
        torch.testing.assert_close(batch.annotation[:, 0], -batch.image[:, 0], atol=0.02, rtol=0)
        originals = group.read(range(6), "depth")[0]
        mirrored += not any(torch.equal(batch.image[0], original) for original in originals)
    assert 1 <= mirrored <= 9


def test_a_mirrored_normal_points_the_other_way(group):
    """In the group's views normals = image with its channels in reverse, so x is the image's blue."""
    signs = set()
    for number in range(1, 21, 2):
        batch = batches([group], jitter=False)[number]
        torch.testing.assert_close(batch.annotation[:, 1:], batch.image.flip(1)[:, 1:], atol=0.02, rtol=0)
        same = torch.allclose(batch.annotation[:, 0], batch.image[:, 2], atol=0.02)
        opposite = torch.allclose(batch.annotation[:, 0], -batch.image[:, 2], atol=0.02)
        assert same != opposite
        signs.add(same)
    assert signs == {True, False}


def test_smaller_images_are_means_and_fit_the_model(group):
    batch = batches([group], size=0.5)[0]
    assert batch.image.shape == (4, 3, 16, 16) and batch.valid.shape == (4, 1, 16, 16)
    assert batch.valid.dtype == torch.bool and batch.valid.all()
    assert float(batch.annotation.mean()) == pytest.approx(float(batches([group])[0].annotation.mean()), abs=0.03)


def test_parts_of_images_are_enlarged_with_their_annotation(group):
    """In the group's views normals = image with its channels in reverse."""
    whole, part = (batches([group], crop=crop, jitter=False) for crop in (1.0, 0.6))
    for number in range(1, 13, 2):
        batch = part[number]
        assert batch.image.shape == whole[number].image.shape and batch.valid.all()
        torch.testing.assert_close(batch.annotation[:, 1:], batch.image.flip(1)[:, 1:], atol=0.02, rtol=0)
        assert not torch.equal(batch.image, whole[number].image)


def test_the_depth_of_a_part_has_the_range_of_the_part(group):
    batch = batches([group], crop=0.5, jitter=False)[0]
    low, high = batch.annotation[:, 0].flatten(1).aminmax(dim=1)
    assert (low < -0.95).all() and (high > 0.95).all()
    image, depth = -batch.image[:, 0].flatten(1), batch.annotation[:, 0].flatten(1)
    inside = depth.abs() < 0.99
    for x, y, known in zip(image, depth, inside, strict=True):
        assert torch.corrcoef(torch.stack((x[known], y[known])))[0, 1] > 0.999


def test_windows_are_of_every_size_and_place():
    generator = torch.Generator().manual_seed(0)
    windows = [window((48, 160), 0.5, generator) for _ in range(200)]
    sizes = torch.tensor([(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in windows])
    assert sizes.amin(0).tolist() <= [24, 82] and (sizes.amax(0) >= torch.tensor([47, 158])).all()
    assert ((sizes[:, 1] / sizes[:, 0] - 160 / 48).abs() < 0.15).all()
    assert min(rows.start for rows, _ in windows) == 0 and max(rows.stop for rows, _ in windows) == 48
    assert min(columns.start for _, columns in windows) == 0 and max(columns.stop for _, columns in windows) == 160


def test_groups_come_up_by_their_weight(group):
    wide = RenderedGroup(3.0, {name: values[:, :, :16] for name, values in group.fields.items()}, group.shift)
    heights = [batches([group, wide])[number].image.shape[2] for number in range(200)]
    assert 0.65 < heights.count(16) / 200 < 0.85


def test_jitter_changes_colors_and_stays_in_range(group):
    image = group.read([0, 1], "depth")[0]
    changed = jitter(image, torch.Generator().manual_seed(0))
    assert changed.shape == image.shape and changed.abs().max() <= 1 and (changed - image).abs().mean() > 0.05
    # Bright stays brighter than dark.
    gray, before = changed.mean(1).flatten(1), image.mean(1).flatten(1)
    assert all(torch.corrcoef(torch.stack(pair))[0, 1] > 0.8 for pair in zip(gray, before, strict=True))


def test_no_views_is_an_error(group):
    with pytest.raises(ValueError, match="at least one view"):
        batches([])


def test_a_share_of_the_images_is_mixed_with_what_a_filter_makes_of_them(generator):
    images = torch.rand(64, 3, 12, 20, generator=generator) * 2 - 1
    mixed = mix_convolved(images, 0.25, generator)
    assert mixed.shape == images.shape and float(mixed.abs().max()) <= 1
    changed = (mixed != images).flatten(1).any(1)
    assert 4 <= int(changed.sum()) <= 28
    assert torch.equal(mix_convolved(images, 0.0, generator), images)
    assert (mix_convolved(images, 1.0, generator) != images).flatten(1).any(1).all()


def test_a_filter_keeps_edges_where_they_are(generator):
    """An image of two halves: away from their edge, and whatever the colors, it stays two even halves."""
    halves = torch.full((32, 3, 16, 24), -0.5)
    halves[..., 12:] = 0.5
    mixed = mix_convolved(halves, 1.0, generator)
    for half in (mixed[..., :10], mixed[..., 14:]):
        torch.testing.assert_close(half, half[..., :1, :1].expand_as(half))
    assert ((mixed[..., 20] - mixed[..., 4]).abs().amax(dim=(1, 2)) > 0.05).float().mean() > 0.9


def test_filters_change_images_alone_and_no_batch_without_them(group):
    plain, filtered = (batches([group], random_convolution=share)[1] for share in (0.0, 1.0))
    assert not torch.equal(filtered.image, plain.image)
    assert torch.equal(filtered.annotation, plain.annotation) and torch.equal(filtered.valid, plain.valid)


def test_some_images_are_blurred_or_compressed_and_stay_what_they_are():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 32, 40, generator=generator) * 2 - 1
    worse = degrade(images, generator)
    assert worse.shape == images.shape and worse.abs().max() <= 1
    changed = (worse - images).abs().amax(dim=(1, 2, 3)) > 1e-6
    assert COMPRESSED * 40 < int(changed.sum()) < 36
    # Blocks and blur take fine detail and leave means.
    sharpness = [each[changed].diff(dim=3).abs().mean() for each in (images, worse)]
    assert float(sharpness[1]) < 0.8 * float(sharpness[0])
    torch.testing.assert_close(worse.mean((2, 3)), images.mean((2, 3)), atol=0.08, rtol=0)


def test_some_images_lose_their_color():
    images = torch.rand(60, 3, 8, 10, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    spread = jitter(images, torch.Generator().manual_seed(1)).std(dim=1).mean(dim=(1, 2))
    assert 3 <= int((spread < 0.03).sum()) <= 20
