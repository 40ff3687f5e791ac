from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.inference.annotations import Annotations
from lotus2_ros.model.image_size import process_size


class Oracle:
    """Knows the truth of what it has been shown, up to a scale and a shift; its sharpener takes two steps, negates the
    disparity's scale and turns the normals round.
    """

    process_resolution = 48

    def __init__(self) -> None:
        self.model = SimpleNamespace(
            name="oracle", multiple=4, has_sharpener=lambda task: True, process_size=partial(process_size, multiple=4)
        )
        self.known = []  # image, depth, normals
        self.calls = 0

    def learn(self, item) -> None:
        self.known += [(view.image, view.depth, view.normals) for view in (item if isinstance(item, list) else [item])]

    def predict(self, image, tasks=None):
        self.calls += 1
        depth, normals = next((depth, normals) for seen, depth, normals in self.known if torch.equal(seen, image))
        disparity = None if depth is None else torch.nan_to_num(0.3 / depth, nan=0.0) + 0.5
        tasks = tasks or ("depth", "normals")
        return said(disparity if "depth" in tasks else None, normals if "normals" in tasks else None, tasks)

    def refines(self, task):
        return True

    def sharpen(self, coarse, steps):
        disparity = None if coarse.disparity is None else 9 - coarse.disparity
        normals = None if coarse.normals is None else -coarse.normals
        return SimpleNamespace(result=lambda: said(disparity, normals))


def said(disparity, normals, tasks=()) -> SimpleNamespace:
    """What stands for a Geometry."""
    annotations = Annotations(disparity, normals=normals)
    return SimpleNamespace(
        disparity=disparity, normals=normals, uncertainty=None, annotations=annotations, latents=dict.fromkeys(tasks)
    )


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="session")
def view() -> scenes.View:
    return scenes.view(2, 48, 36, "room")
