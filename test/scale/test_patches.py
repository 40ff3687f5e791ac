"""Patches that are found again in moved, zoomed and darker images, and corners that do not drift."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lotus2_ros.scale.corners import Corners
from lotus2_ros.scale.patches import Patches

HEIGHT, WIDTH = 200, 320


@pytest.fixture(scope="module")
def texture():
    rng = np.random.default_rng(5)
    blobs = (cv2.resize(rng.random((HEIGHT // n, WIDTH // n), dtype=np.float32), (WIDTH, HEIGHT)) for n in (4, 9, 25))
    return cv2.normalize(sum(blobs), None, 40, 200, cv2.NORM_MINMAX).astype(np.uint8)


def warped(image, zoom, shift):
    """The image in which the pixel p of ``image`` is at zoom * p + shift."""
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]], np.float32)
    return cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def grid(step=24):
    v, u = np.mgrid[40 : HEIGHT - 40 : step, 40 : WIDTH - 40 : step]
    return np.stack((u, v), -1).reshape(-1, 2).astype(np.float32)


@pytest.mark.parametrize("zoom", [1.0, 0.94, 1.06])
def test_a_patch_is_found_between_pixels_at_another_size_and_brightness(texture, zoom):
    patches, pixels, shift = Patches(), grid(), np.array([3.3, -1.6], np.float32)
    patches.add(texture, pixels)
    image = np.clip(0.7 * warped(texture, zoom, shift).astype(np.float32) + 30, 0, 255).astype(np.uint8)
    true = zoom * pixels + shift
    found, mask = patches.align(image, true + np.float32([0.8, -0.7]))
    assert mask.mean() > 0.9
    error = np.abs(found - true)[mask]
    assert np.median(error) < 0.03 and np.quantile(error, 0.9) < 0.1


def test_a_patch_that_is_not_there_is_not_found(texture):
    patches = Patches()
    patches.add(texture, grid())
    _, mask = patches.align(np.ascontiguousarray(texture[::-1, ::-1]), grid())
    assert mask.mean() < 0.1


def test_nothing_is_found_where_all_is_gray(texture):
    patches = Patches()
    patches.add(texture, grid())
    assert not patches.align(np.full_like(texture, 90), grid())[1].any()
    plain = Patches()
    plain.add(np.full_like(texture, 90), grid())
    found, mask = plain.align(texture, grid())
    assert not mask.any() and np.isfinite(found).all()


def test_the_patches_that_are_kept_are_those_of_their_corners(texture):
    patches, pixels = Patches(), grid()
    patches.add(texture, pixels[:10])
    patches.add(texture, pixels[10:])
    kept = np.arange(len(pixels)) % 3 == 1
    patches.keep(kept)
    found, mask = patches.align(texture, pixels[kept] + 0.5)
    assert mask.mean() > 0.9
    assert np.abs(found - pixels[kept])[mask].max() < 0.1


def test_corners_do_not_drift(texture):
    """A noisy image that grows by a fifth in 30 steps of less than a pixel."""
    rng, corners = np.random.default_rng(1), Corners()
    start = np.empty((0, 2))
    for number in range(31):
        zoom, shift = 1 + number / 150, np.array([-0.83 * number, -0.61 * number])
        noise = rng.normal(0, 4, texture.shape)
        image = np.clip(warped(texture, zoom, shift) + noise, 0, 255).astype(np.uint8)
        kept = corners.follow(image, corners.pixels)
        if number == 0:
            corners.find()
            start = corners.pixels.copy()
        else:
            start = start[kept]
    error = np.linalg.norm(zoom * start + shift - corners.pixels, axis=-1)
    assert len(error) > 40
    assert np.median(error) < 0.2 and np.quantile(error, 0.8) < 0.35
