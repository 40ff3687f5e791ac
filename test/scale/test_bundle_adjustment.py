"""Bundle adjustment of points whose depth is known."""

import cv2
import numpy as np
import pytest

from lotus2_ros.scale.bundle_adjustment import MotionNoise, Views, adjust

RNG = np.random.default_rng(0)
RAYS = RNG.uniform((-0.6, -0.4), (0.5, 0.45), (80, 2))
INVERSE = RNG.uniform(0.1, 0.8, 80)
POINTS = np.concatenate((RAYS, np.ones((80, 1))), -1) / INVERSE[:, None]
ROTATIONS = np.stack([cv2.Rodrigues(np.array([0.02 * n, -0.03 * n, 0.01 * n]))[0] for n in (3, 2, 1)])
POSITIONS = np.array([[-0.3, 0.02, -0.1], [-0.2, 0.0, -0.05], [-0.1, 0.01, -0.04]])
FOCAL = 400.0
NOISE = MotionNoise(direction=0.05, rotation=0.005)


def seen(rotations=ROTATIONS, positions=POSITIONS):
    inside = (POINTS - positions[:, None]) @ rotations
    return inside[..., :2] / inside[..., 2:]


def views(places=None, rotations=ROTATIONS, positions=POSITIONS):
    return Views(RAYS, seen() if places is None else places, rotations, positions, FOCAL)


def test_exact_views_give_exact_depth():
    found = adjust(views(), NOISE)
    np.testing.assert_allclose(found.inverse_depth, INVERSE, rtol=1e-3)
    assert found.error.max() < 0.01 and max(found.along.max(), found.across.max(), found.turned.max()) < 1e-3


def test_the_image_corrects_rotation_and_direction_and_odometry_gives_the_length():
    turned = cv2.Rodrigues(np.radians([0.4, -0.3, 0.5]))[0] @ ROTATIONS
    found = adjust(views(rotations=turned, positions=1.1 * POSITIONS), NOISE)
    np.testing.assert_allclose(1.1 * found.inverse_depth, INVERSE, rtol=0.02)
    assert np.degrees(found.turned).max() == pytest.approx(np.hypot(np.hypot(0.4, 0.3), 0.5), rel=0.1)


def test_an_odometry_that_turned_once_is_wrong_once():
    """A wrong turn before the newest view moves all others about it; from one of them to the next nothing is wrong."""
    turn = cv2.Rodrigues(np.radians([0.4, -0.3, 0.5]))[0]
    found = adjust(views(rotations=turn @ ROTATIONS, positions=POSITIONS @ turn.T), NOISE)
    assert found.turned[:2].max() < 0.1 * found.turned[2] and found.across[:2].max() < 0.3 * found.across[2]


def test_points_that_move_by_themselves_do_not_fit():
    places = seen()
    places[:, :15] += np.linspace(0.03, 0.01, 3)[:, None, None]
    found = adjust(views(places), NOISE)
    np.testing.assert_allclose(found.inverse_depth[15:], INVERSE[15:], rtol=0.03)


def test_missing_observations_count_nothing():
    places = seen()
    places[:2, 10:20] = np.nan
    places[:, 20:22] = np.nan
    found = adjust(views(places), NOISE)
    np.testing.assert_allclose(np.delete(found.inverse_depth, (20, 21)), np.delete(INVERSE, (20, 21)), rtol=2e-3)
    assert np.isnan(found.error[20:22]).all()
    assert found.deviation[10:20].mean() > 1.3 * found.deviation[30:].mean()  # a shorter baseline tells less


def test_the_deviation_is_that_of_noisy_places_and_poses_add_to_it():
    noise = 0.7 / FOCAL
    draws = [adjust(views(seen() + noise * RNG.standard_normal((3, 80, 2))), NOISE) for _ in range(30)]
    spread = np.std([found.inverse_depth for found in draws], axis=0)
    assert 1 < np.median(spread / draws[0].deviation) < 1.7
