import pytest
import torch
from torch.nn import functional as F

from lotus2_ros.training.batches import Batch
from lotus2_ros.training.decoded import FARTHEST, EndToEndLoss, decoded_error, soft_boundary_f1, surface_normals

SHIFT = 0.2


class Decoder:
    """A model whose latent is the annotation itself."""

    def decode_unclamped(self, latent):
        return latent * 0.5 + 0.5


def error(task, answer, truth, *, valid=None, power=2, shift=SHIFT):
    if valid is None:
        valid = torch.ones(len(truth), 1, *truth.shape[2:], dtype=torch.bool)
    batch = Batch(task, torch.zeros_like(truth), truth, valid, torch.full((len(truth),), shift), seed=0)
    return decoded_error(Decoder(), answer, batch, power)


def plane(m, height=24, width=32, shift=SHIFT):
    """The disparity annotation (1, 3, H, W) of the plane 1 / z = m . r, under the camera of `surface_normals`."""
    u = (torch.arange(width) - (width - 1) / 2) / width
    v = (torch.arange(height) - (height - 1) / 2) / width
    disparity = m[0] * u + m[1] * v[:, None] + m[2]
    return (2 * (disparity - shift) - 1).expand(1, 3, height, width)


@pytest.mark.parametrize("m", [(0.0, 0.0, 0.6), (0.4, 0.0, 0.7), (0.0, 0.8, 0.6), (-0.3, 0.5, 0.55)])
def test_normals_of_a_plane_are_its_own(m):
    annotation = plane(m)[:, :1]
    assert annotation.abs().max() <= 1
    disparity = annotation * 0.5 + 0.5
    expected = F.normalize(torch.tensor(m), dim=0)[:, None, None].expand(3, 23, 31)
    torch.testing.assert_close(surface_normals(disparity, disparity + SHIFT)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("task", ["depth", "normals"])
def test_the_truth_has_no_error(task, power):
    truth = plane((0.2, -0.3, 0.6)) if task == "depth" else F.normalize(torch.randn(1, 3, 24, 32), dim=1)
    found = error(task, truth.clone(), truth, power=power)
    assert float(found.values) == pytest.approx(0, abs=1e-6) and float(found.angles) < 0.01
    assert found.of_fit is None if task == "normals" else float(found.of_fit.relative) < 0.01


def test_angles_are_one_minus_the_cosine_or_chords():
    truth = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(2, 3, 8, 12)
    tilted = torch.tensor([0.0, 3**0.5 / 2, 0.5])[None, :, None, None].expand(2, 3, 8, 12)
    assert float(error("normals", tilted, truth).angles) == pytest.approx(0.5, abs=1e-6)
    assert float(error("normals", tilted, truth, power=1).angles) == pytest.approx(1, abs=1e-4)
    assert float(error("normals", tilted, truth).values) == pytest.approx((3**0.5 / 2 + 0.5) / 3, abs=1e-6)
    # The slope of a floor, 45 degrees, on a wall: by eye the angle changes with the place, so of the middle alone.
    wall, floor = plane((0.0, 0.0, 0.6)), plane((0.0, 0.6, 0.6))
    inverse_depth = torch.full((1, 1, 24, 32), 0.6)
    normals = surface_normals(floor[:, :1] * 0.5 + 0.5, inverse_depth)
    assert float(normals[0, 1:, 11, 15].prod()) == pytest.approx(0.5, abs=0.02)
    assert float(error("depth", floor, wall).angles) > 0.2


def test_bumps_cost_angles_and_an_offset_does_not():
    wall = plane((0.0, 0.0, 0.6))
    bumps = 0.05 * torch.sin(torch.arange(32) * 0.8)
    bumpy, flat = error("depth", wall + bumps, wall), error("depth", wall + bumps.abs().mean(), wall)
    assert float(bumpy.values) == pytest.approx(float(flat.values), rel=0.05)
    assert float(bumpy.angles) > 0.05 and float(flat.angles) < 1e-5


def test_angles_move_slopes_and_not_the_disparity_itself():
    """A far tilted surface, answered too steep: nearer it would be less so, but there is no pull to there."""
    truth = plane((0.1, 0.0, 0.25))
    answer = plane((0.2, 0.0, 0.25)).clone().requires_grad_()
    error("depth", answer, truth).angles.backward()
    assert float(answer.grad.abs().max()) > 1e-5
    assert float(answer.grad.sum()) == pytest.approx(0, abs=1e-6)


def test_relative_errors_are_of_the_best_fit_and_shares_of_the_disparity():
    generator = torch.Generator().manual_seed(0)
    truth = plane((0.0, 0.8, 0.6))
    assert float(error("depth", truth * 0.4 - 0.3, truth).of_fit.relative) < 0.02  # any scale and shift, but for `FLAT`
    noise = 0.02 * torch.randn(truth[:, :1].shape, generator=generator)
    near, far = error("depth", truth + noise, truth), error("depth", truth + noise, truth, shift=0.05)
    disparity = truth[:, :1] * 0.5 + 0.5
    assert float(near.of_fit.relative) == pytest.approx(float((noise.abs() / 2 / (disparity + SHIFT)).mean()), rel=0.05)
    assert float(far.of_fit.relative) == pytest.approx(float((noise.abs() / 2 / (disparity + 0.05)).mean()), rel=0.05)
    assert float(far.of_fit.relative) > 1.2 * float(near.of_fit.relative) and float(far.values) == float(near.values)


def test_what_is_compared_after_the_best_fit():
    truth = plane((0.2, 0.8, 0.6))
    for same in (truth, truth * 0.4 - 0.3):
        found = error("depth", same, truth)
        assert max(float(found.of_fit.fitted), float(found.of_fit.gradients), float(found.of_fit.correlation)) < 0.02
    reversed_ = error("depth", -truth, truth)
    assert float(reversed_.of_fit.correlation) == pytest.approx(2, abs=0.02)
    assert float(reversed_.of_fit.fitted) < 0.01  # by a negative scale, which the correlation is there to see
    # An edge in the wrong place costs slopes, and more the finer it is looked at; the error itself is the same.
    step, moved = (torch.full((1, 3, 32, 32), -0.5) for _ in range(2))
    step[..., 16:], moved[..., 18:] = 0.5, 0.5
    soft = F.avg_pool2d(F.pad(step, (4, 4, 4, 4), mode="replicate"), 9, 1)
    assert min(float(error("depth", each, step).of_fit.gradients) for each in (soft, moved)) > 0.01
    normals = F.normalize(torch.randn(1, 3, 8, 12), dim=1)
    assert error("normals", -normals, normals).of_fit is None


def test_edges_count_by_the_ratio_of_their_depths():
    far, near = (torch.full((1, 3, 32, 32), low) for low in (-0.98, 0.4))
    for truth in (far, near):
        truth[..., 16:] += 0.2  # the same step of disparity

    def of_missed_edge(truth):
        smooth = F.avg_pool2d(F.pad(truth, (4, 4, 4, 4), mode="replicate"), 9, 1)
        return error("depth", smooth, truth, shift=0.1)

    of_near, of_far = of_missed_edge(near).of_fit, of_missed_edge(far).of_fit
    assert float(of_far.edges) > 3 * float(of_near.edges)
    assert float(of_far.gradients) == pytest.approx(float(of_near.gradients), rel=0.05)


def test_the_boundary_score_wants_edges_at_their_place():
    truth = torch.where(torch.arange(32) < 16, 0.5, 1.0).expand(1, 1, 16, 32).log()
    valid = torch.ones_like(truth)
    soft = F.avg_pool2d(truth, (1, 9), 1, (0, 4), count_include_pad=False)
    moved, flat = truth.roll(1, dims=3), torch.zeros_like(truth)
    scores = [float(soft_boundary_f1(each, truth, valid)) for each in (truth, soft, moved, flat)]
    assert scores[0] > 0.99 and scores[0] > scores[1] > 0.05 and max(scores[2:]) < 0.01
    assert float(soft_boundary_f1(truth.mT, truth.mT, valid.mT)) == pytest.approx(scores[0])
    nothing = flat.clone().requires_grad_()
    soft_boundary_f1(nothing, flat, valid).backward()  # no edge anywhere
    assert nothing.grad.isfinite().all()
    assert float(soft_boundary_f1(truth, truth, valid * (torch.arange(32) != 16))) == 0  # the edge is not valid


def test_only_some_views_of_a_batch_are_decoded():
    truth = torch.cat((plane((0.0, 0.3, 0.6)), plane((0.2, 0.0, 0.6))))
    seen = []

    class Counting(Decoder):
        vae_factor = 1

        def decode_unclamped(self, latent):
            seen.append(len(latent))
            return super().decode_unclamped(latent)

    valid = torch.ones(2, 1, 24, 32, dtype=torch.bool)
    batch = Batch("depth", torch.zeros_like(truth), truth, valid, torch.full((2,), SHIFT), seed=0)
    answer = truth.clone()
    answer[1] = 0
    losses = {
        views: float(
            EndToEndLoss(decoded=1, angles=1, power=1, fitted=1, latent=0, views=views, slopes=False).of_prediction(
                Counting(), answer, truth, batch
            )
        )
        for views in (1, None)
    }
    assert seen == [1, 2]
    assert losses[1] < 0.01 < 0.1 < losses[None]


def test_the_sky_does_not_move_the_fit_and_is_held_where_it_is():
    """A street with sky above, whose far end is at a tenth of the range."""
    truth = torch.full((1, 3, 24, 32), -1.0)
    truth[:, :, 8:] = torch.linspace(-0.8, 1, 16)[:, None]
    assert float(error("depth", truth.clone(), truth, shift=0.0).of_fit.relative) < 0.02
    lost = truth.clone()
    lost[:, :, :8] = -0.8  # as near as the far end
    found = float(error("depth", lost, truth, shift=0.0).of_fit.relative)
    assert found == pytest.approx(0.1 / FARTHEST / 3, rel=0.05)  # of a third of the pixels


def test_an_answer_beyond_the_range_is_put_right():
    truth = plane((0.0, 0.0, 0.4))
    answer = (truth - 1.0).requires_grad_()  # below -1, so decoded below 0
    error("depth", answer, truth).values.backward()
    assert bool((answer.grad < 0).all())


def test_an_answer_that_says_nothing_has_finite_gradients():
    truth = plane((0.0, 0.8, 0.6))
    answer = torch.zeros_like(truth).requires_grad_()
    found = error("depth", answer, truth)
    (found.values + found.angles + found.of_fit.relative).backward()
    assert torch.isfinite(answer.grad).all() and float(answer.grad.abs().max()) < 1


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_what_is_not_valid_does_not_count(task):
    truth = plane((0.2, -0.3, 0.6)) if task == "depth" else F.normalize(torch.randn(1, 3, 24, 32), dim=1)
    spoilt = truth.clone()
    spoilt[:, :, 8:12, 4:16] = 0.9
    valid = torch.ones(1, 1, 24, 32, dtype=torch.bool)

    def numbers(found):
        return [float(found.values), float(found.angles), *([float(found.of_fit.relative)] if task == "depth" else [])]

    assert min(numbers(error(task, spoilt, truth, valid=valid))) > 1e-3
    valid[:, :, 8:12, 4:16] = False
    assert max(numbers(error(task, spoilt, truth, valid=valid))) < (0.01 if task == "depth" else 1e-6)
    nothing = numbers(error(task, spoilt, truth, valid=valid & False))
    assert nothing == [0.0] * len(nothing)
