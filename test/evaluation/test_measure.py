import math
from types import SimpleNamespace

import pytest
import torch

from lotus2_ros import scenes
from lotus2_ros.data.benchmarks import Benchmark
from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.measure import measure, measure_benchmark, measure_detail, measure_sequence
from lotus2_ros.evaluation.spectrum import BINS
from lotus2_ros.inference.annotations import Annotations


@pytest.fixture
def sample(oracle, view):
    oracle.learn(view)
    return Sample("room 2", view.image, view.depth, view.normals, view.camera.K)


def test_the_truth_scores_perfectly_and_each_stage_is_measured(oracle, sample):
    record = measure(oracle, sample, None)
    core, sharp = record["core"], record["sharp"]
    assert core["depth"]["abs_rel"] == pytest.approx(0, abs=1e-4) and core["depth"]["delta1"] == 1.0
    assert core["normals"] == pytest.approx(0, abs=0.1) and sharp["normals"] == pytest.approx(180, abs=0.1)
    assert sharp["depth"]["abs_rel"] == pytest.approx(0, abs=1e-4)  # a negative scale is still an affine fit
    assert record["row"]["depth"]["abs_rel"] > 0.02
    # In so small an image few planes are without an edge; of a size of 320 x 240 it is 4 degrees.
    assert core["agreement"] < 20 and sharp["agreement"] > 160


def test_what_is_not_known_is_not_measured(oracle, view):
    oracle.learn(view)
    record = measure(oracle, Sample("", view.image, view.depth), 0)
    assert record.keys() == {"core", "row"} and record["core"].keys() == {"depth"}
    assert measure(oracle, Sample("", view.image, None, view.normals), 0)["core"].keys() == {"normals"}


def test_detail_of_the_truth_is_the_truths(oracle, sample):
    record = measure_detail(oracle, sample, 2)
    for stage in ("core", "sharp"):
        assert record[stage]["boundary"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
        assert record[stage]["log_high_frequency_ratio"] == pytest.approx(0, abs=1e-3)
        assert record[stage]["spectrum"] == pytest.approx(record["truth"]["spectrum"], abs=1e-3)
    assert len(record["truth"]["spectrum"]) == BINS


def test_a_sequence_of_the_truth_does_not_flicker(oracle):
    views = list(scenes.sequence(0, 3, 48, 36))
    oracle.learn(views)
    record = measure_sequence(oracle, views, 0)
    assert record["core"]["flicker"] < 1e-4 and record["core"]["flicker_fitted"] < 1e-4
    # Of frames that are shown in the wrong order it does.
    oracle.known = [
        (image, depth, normals)
        for (image, _, _), (_, depth, normals) in zip(oracle.known, oracle.known[::-1], strict=True)
    ]
    assert measure_sequence(oracle, views, 0)["core"]["flicker"] > 0.01


def test_a_benchmark_gives_the_model_the_size_it_says_and_measures_at_the_images(oracle, view):
    benchmark = Benchmark("set", "depth", lambda path: [], 1, (1e-3, 10.0), resolution=24)
    depth = torch.rand(36, 48, generator=torch.Generator().manual_seed(0)) + 1
    sizes = []

    def predict(image, tasks):
        sizes.append((tuple(image.shape), image.dtype, tasks))
        return SimpleNamespace(annotations=Annotations(torch.full(image.shape[:2], 0.5)), latents={})

    oracle.predict = predict
    record, angles = measure_benchmark(oracle, Sample("", view.image.clone(), depth), 0, benchmark)
    assert sizes == [((18, 24, 3), torch.uint8, ("depth",))] and angles == {}
    assert record["core"]["depth"]["abs_rel"] == pytest.approx(
        float((1 / (1 / depth).mean() / depth - 1).abs().mean()), rel=1e-4
    )


def test_a_benchmark_of_normals_gives_the_angles_to_be_pooled(oracle, view):
    oracle.learn(view)
    truth = view.normals.clone()
    truth[:30] = torch.nan
    benchmark = Benchmark("set", "normals", lambda path: [], 1)
    record, angles = measure_benchmark(oracle, Sample("", view.image, None, truth), None, benchmark)
    assert record.keys() == angles.keys() == {"core", "sharp"}
    assert angles["core"].shape == (6 * 48,) and math.isclose(record["sharp"]["normals"], 180, abs_tol=0.1)
