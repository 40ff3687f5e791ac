"""A geometry's points, and its files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lotus2_ros.scale.reference import Reference


def files(folder):
    return {file.name for file in folder.iterdir()}


def test_points_need_a_camera_and_depth(estimator, image, camera):
    points = estimator.predict(image, camera).points()
    assert points.shape == (*image.shape[:2], 3)
    with pytest.raises(ValueError, match="pass camera= to predict"):
        estimator.predict(image).points()
    with pytest.raises(ValueError, match="not asked for depth"):
        estimator.predict(image, camera, tasks=["normals"]).points()


def test_without_a_camera_no_depth_is_saved(estimator, image, tmp_path):
    """Without one its shift is a guess: a picture of it would be of another scene."""
    geometry = estimator.predict(image)
    geometry.save(tmp_path / "made" / "too")
    assert files(tmp_path / "made" / "too") == {"disparity.npy", "normals.npy", "preview.png"}
    assert np.array_equal(np.load(tmp_path / "made" / "too" / "normals.npy"), geometry.normals.numpy())


def test_with_a_camera_depth_and_points_are_saved(estimator, image, camera, tmp_path):
    geometry = estimator.predict(image, camera)
    geometry.save(str(tmp_path))
    assert files(tmp_path) == {"disparity.npy", "normals.npy", "depth.npy", "points.ply", "preview.png"}
    np.testing.assert_array_equal(np.load(tmp_path / "depth.npy"), geometry.depth.numpy())
    valid = int(torch.isfinite(geometry.points()).all(dim=-1).sum())
    assert f"element vertex {valid}\n".encode() in (tmp_path / "points.ply").read_bytes()


def test_metric_depth_is_saved_without_a_camera(estimator, image, tmp_path):
    truth = 1 / (0.5 * estimator.predict(image).disparity + 0.2)
    estimator.predict(image, reference=Reference(truth)).save(tmp_path)
    assert "depth.npy" in files(tmp_path) and "points.ply" not in files(tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "depth.npy"), truth.numpy(), rtol=1e-3)


def test_a_reference_may_be_points(estimator, image, camera):
    truth = 1 / (0.5 * estimator.predict(image).disparity + 0.2)
    points = camera.unproject(truth)[::2, ::2].reshape(-1, 3)
    geometry = estimator.predict(image, camera, points)
    assert geometry.scale.metric and geometry.scale.source == "reference_points"
    error = (geometry.depth / truth - 1).abs()
    assert float(error.median()) < 0.01


def test_a_sharp_geometry_is_drawn_below_its_coarse_one(estimator, image, camera, tmp_path):
    import cv2

    coarse = estimator.predict(image, camera)
    sharp = estimator.sharpen(coarse, steps=1).result()
    assert sharp.coarse is coarse
    coarse.save(tmp_path / "coarse")
    sharp.save(tmp_path / "sharp")
    one, two = (cv2.imread(str(tmp_path / name / "preview.png")).shape for name in ("coarse", "sharp"))
    assert two[1] == pytest.approx(one[1], abs=2) and two[0] > 1.5 * one[0]
