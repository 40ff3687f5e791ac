from dataclasses import replace

import pytest
import torch

from lotus2_ros.inference import sharpening as sharpening_module
from lotus2_ros.inference.annotations import Annotations, annotate
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.upsampling import BY_COLOR
from lotus2_ros.scale.filter import ScaleFilter
from lotus2_ros.scale.reference import Reference


@pytest.fixture
def coarse(estimator, image, camera):
    return estimator.predict(image, camera, scale_filter=ScaleFilter(), stamp=3.0)


def count_decodes(monkeypatch):
    counts = []
    monkeypatch.setattr(
        sharpening_module, "annotate", lambda *args, **named: counts.append(1) or annotate(*args, **named)
    )
    return counts


def test_a_step_is_one_euler_step_of_one_task(estimator, coarse, monkeypatch):
    passes = []
    velocity = estimator.model.velocity
    monkeypatch.setattr(
        estimator.model, "velocity", lambda z, task, sigma: passes.append(task) or velocity(z, task, sigma)
    )
    decodes = count_decodes(monkeypatch)
    sharpening = estimator.sharpen(coarse, steps=3)
    assert not passes and not sharpening.done
    remain = []
    for step in range(6):
        remain.append(sharpening.step())
        assert len(passes) == step + 1
    assert remain == [True] * 5 + [False] and passes == ["depth"] * 3 + ["normals"] * 3
    assert not sharpening.step() and len(passes) == 6 and not decodes


@pytest.mark.parametrize(("guided", "guidance"), [("yes", BY_COLOR), ("no", None)])
def test_the_image_guides_the_sharp_depth_more(estimator, image, monkeypatch, guided, guidance):
    found = []
    monkeypatch.setattr(
        sharpening_module,
        "annotate",
        lambda *args, **named: found.append(named["guidance"]) or annotate(*args, **named),
    )
    chosen = Estimator(estimator.model, estimator.config.updated({"depth.guided": guided}))
    coarse = chosen.predict(image)
    chosen.sharpen(coarse, steps=1).result()
    assert found == [guidance] and coarse.scale.is_detailed == (guided == "no")


def test_the_result_runs_what_remains_and_is_decoded_once(estimator, coarse, monkeypatch):
    decodes = count_decodes(monkeypatch)
    sharpening = estimator.sharpen(coarse, steps=2)
    sharpening.step()
    assert sharpening.result() is sharpening.result() and sharpening.done and len(decodes) == 1
    assert torch.equal(sharpening.result().disparity, estimator.sharpen(coarse, steps=2).result().disparity)
    assert list(sharpening.result().latency) == ["sharpen", "decode", "align"]


def test_iterating_gives_the_geometry_after_each_step(estimator, coarse, monkeypatch):
    decodes = count_decodes(monkeypatch)
    sharpening = estimator.sharpen(coarse, steps=2)
    first, second, third, last = sharpening
    assert last is sharpening.result() and len(decodes) == 4
    assert not torch.equal(first.disparity, second.disparity) and torch.equal(second.disparity, third.disparity)
    assert torch.equal(first.normals, coarse.normals) and not torch.equal(third.normals, last.normals)
    assert list(sharpening) == []


def test_the_sharp_geometry_keeps_the_frame_and_not_the_answer(estimator, coarse):
    sharp = estimator.sharpen(coarse, steps=1).result()
    assert sharp.stage == "sharpener" and coarse.stage == "core"
    assert sharp.camera is coarse.camera and sharp.scale.source == coarse.scale.source
    assert not torch.equal(sharp.disparity, coarse.disparity) and not torch.equal(sharp.normals, coarse.normals)
    assert sharp.depth is not coarse.depth  # not a copy of the coarse one's cached depth


def test_only_the_tasks_asked_for_are_sharpened(estimator, coarse):
    sharp = estimator.sharpen(coarse, steps=1, tasks=["normals"]).result()
    assert torch.equal(sharp.disparity, coarse.disparity) and not torch.equal(sharp.normals, coarse.normals)


def test_the_parameter_chooses_the_tasks_that_are_sharpened(estimator, coarse):
    estimator.config = estimator.config.updated({"sharp.tasks": ("normals",)})
    sharp = estimator.sharpen(coarse, steps=1).result()
    assert torch.equal(sharp.disparity, coarse.disparity) and not torch.equal(sharp.normals, coarse.normals)
    assert not torch.equal(estimator.sharpen(coarse, 1, ["depth"]).result().disparity, coarse.disparity)
    for _, run in estimator.warm_up(*coarse.image.shape[:2]):  # of all tasks: the parameter may change
        run()


def test_a_model_without_a_sharpener_says_so(estimator, coarse, monkeypatch):
    monkeypatch.setattr(estimator.model, "has_sharpener", lambda task: False)
    with pytest.raises(ValueError, match="has no detail sharpener for depth, normals"):
        estimator.sharpen(coarse)


def test_a_sharp_geometry_is_brought_to_the_scale_of_its_coarse_one(estimator, coarse, monkeypatch):
    """A sharpener that changes nothing but the scale and shift of the disparity leaves the depth as it was."""
    sharp = Annotations(0.5 * coarse.disparity + 0.3, normals=coarse.normals)
    monkeypatch.setattr(sharpening_module, "annotate", lambda *_, **__: sharp)
    sharp = estimator.sharpen(coarse, steps=1).result()
    torch.testing.assert_close(sharp.depth, coarse.depth, rtol=1e-3, atol=0)
    assert not sharp.scale.metric


def test_a_sharp_geometry_is_metric_where_its_coarse_one_is(estimator, image, camera):
    truth = 1 / (0.5 * estimator.predict(image).disparity + 0.2)
    coarse = estimator.predict(image, camera, Reference(truth))
    sharp = estimator.sharpen(coarse, steps=1).result()
    assert sharp.scale.metric and sharp.scale.scale != coarse.scale.scale


def test_with_a_local_field_the_sharp_geometry_has_the_details_alone(estimator, image, camera, monkeypatch):
    """What the sharpener changes over many pixels is no error that the field's points have seen."""
    coarse = estimator.predict(image, camera, scale_filter=ScaleFilter())
    height, width = coarse.disparity.shape
    across = torch.linspace(-1, 1, width).expand(height, -1)
    coarse = replace(coarse, scale=replace(coarse.scale, local=0.1 * torch.ones(6, 8), farthest=50.0))
    detail = torch.zeros(height, width)
    detail[height // 2, width // 2] = 0.2
    disparity = coarse.disparity * (1 + 0.1 * across.square()) + detail
    monkeypatch.setattr(sharpening_module, "annotate", lambda *_, **__: Annotations(disparity, normals=coarse.normals))
    sharp = estimator.sharpen(coarse, steps=1).result()
    assert sharp.scale.is_detailed
    ratio = sharp.depth / coarse.depth
    assert float(ratio[height // 2, width // 2]) < 0.9
    assert float((ratio[detail == 0] - 1).abs().mean()) < 0.01
