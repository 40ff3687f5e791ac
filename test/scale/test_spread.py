"""The standard deviation of depth: from errors at held-out points, or as it is stated."""

import math

import pytest
import torch

from lotus2_ros.config import ScaleConfig
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference
from lotus2_ros.scale.scale import RelativeGeometry
from lotus2_ros.scale.spread import UNREACHED, Spread
from lotus2_ros.scale.spread_calibration import INTERVAL

HEIGHT, WIDTH, POINTS, DRAWS = 120, 200, 300, 5
ROWS, COLUMNS = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
DISPARITY = 0.1 + 0.6 * ROWS + 0.1 * COLUMNS
LINE = 1 / (0.5 * DISPARITY + 0.1)  # meters
IMAGE = torch.full((HEIGHT, WIDTH, 3), 99, dtype=torch.uint8)
LOCAL, GLOBAL = ScaleConfig(), ScaleConfig(local_field=False)


def noisy(share, seed=0):
    """Depth with Gaussian noise of so much, a number or (H, W)."""
    return LINE * (1 + share * torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)))


def sparse(depth, seed=0, where=True):
    """POINTS pixels of the depth, where the mask allows."""
    places = torch.nonzero((torch.ones_like(depth) * where).flatten())[:, 0]
    chosen = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))[:POINTS]]
    return torch.full_like(depth, math.nan).flatten().index_put((chosen,), depth.flatten()[chosen]).view(depth.shape)


def aligned(depth, config=GLOBAL, where=True, scale_filter=None, stamp=0.0):
    scale = (scale_filter or ScaleFilter()).align(
        RelativeGeometry(DISPARITY, IMAGE, stamp=stamp),
        None if depth is None else Reference(sparse(depth, where=where), stamp),
        config,
        with_sigma=True,
    )
    found = scale.depth_of(DISPARITY)
    return found, scale.spread.sigma(found)


@pytest.mark.parametrize("config", [GLOBAL, LOCAL], ids=["line", "field"])
def test_intervals_hold_where_errors_are_small_and_where_they_are_large(config):
    inside = torch.zeros(HEIGHT, WIDTH)
    for seed in range(DRAWS):
        truth = noisy(torch.where(COLUMNS < 0.5, 0.01, 0.06), seed)
        depth, sigma = aligned(truth, config)
        inside += ((truth - depth).abs() <= INTERVAL * sigma) / DRAWS
    sides = COLUMNS < 0.4, COLUMNS > 0.6
    assert 0.83 <= float(inside.mean()) <= 0.95
    # The errors of a place are drawn toward those of the whole image.
    assert all(0.75 <= float(inside[side].mean()) <= 0.98 for side in sides)
    small, large = (float((sigma / depth)[side].median()) for side in sides)
    assert small == pytest.approx(0.01, rel=0.6) and large == pytest.approx(0.06, rel=0.4)


def test_wrong_points_do_not_widen_it_much():
    truth = noisy(0.02)
    bad = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) < 0.2
    depth, sigma = aligned(torch.where(bad, truth * 3, truth), LOCAL)
    assert float((sigma / depth).median()) < 0.06


def test_far_from_all_points_it_is_wide():
    depth, sigma = aligned(noisy(0.01), LOCAL, where=ROWS > 0.7)
    share = sigma / depth
    assert share[ROWS < 0.2].min() > UNREACHED and share[ROWS > 0.8].median() < 0.03


def test_it_is_in_meters_and_what_is_no_depth_has_none():
    spread = Spread("camera_height", scale=0.5)
    depth = torch.tensor([[1.0, 2.0, math.nan, math.inf]]).repeat(3, 1)
    sigma = spread.sigma(depth)
    assert torch.isnan(sigma[:, 2]).all() and torch.isinf(sigma[:, 3]).all()
    assert 0.1 < float(sigma[0, 0]) < float(sigma[0, 1]) / 2  # far depth is less sure as a share too


def test_a_source_that_knows_less_is_wider():
    depth = torch.ones(30, 40)
    names = "odometry", "camera_height", "metric_model"
    shares = [float(Spread(name, scale=0.5).sigma(depth).mean()) for name in names]
    assert shares == sorted(shares) and shares[0] > 0.1


def test_what_the_model_doubts_is_wider():
    doubt = torch.zeros(60, 80)
    doubt[:, 40:] = 0.2
    sigma = Spread("camera_height", scale=1.0).sigma(torch.ones(60, 80), doubt)
    assert float(sigma[:, -1].mean()) > 1.2 * float(sigma[:, 0].mean())


def test_it_grows_until_the_next_reference():
    scale_filter = ScaleFilter()
    shares = []
    for number, given in enumerate((noisy(0.01), None, None, noisy(0.01))):
        image = torch.randint(0, 255, IMAGE.shape, generator=torch.Generator().manual_seed(number)).to(torch.uint8)
        reference = None if given is None else Reference(sparse(given), number * 0.2)
        frame = RelativeGeometry(DISPARITY, image, stamp=number * 0.2)
        scale = scale_filter.align(frame, reference, ScaleConfig(tracking=False), with_sigma=True)
        depth = scale.depth_of(DISPARITY)
        shares.append(float((scale.spread.sigma(depth) / depth).median()))
    assert shares[0] < shares[1] < shares[2] and shares[3] < shares[1]


def test_it_is_computed_only_for_who_asks():
    frame, reference = RelativeGeometry(DISPARITY, IMAGE), Reference(sparse(noisy(0.01)))
    assert ScaleFilter().align(frame, reference, GLOBAL).spread is None
    assert ScaleFilter().align(frame, None, GLOBAL, with_sigma=True).spread is None  # not metric
