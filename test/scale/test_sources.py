"""The registry of scale sources."""

import math
from dataclasses import fields, replace

import pytest
import torch

from lotus2_ros.config import ScaleConfig
from lotus2_ros.ros.references import REFERENCE_TOPICS
from lotus2_ros.scale.fit import AlignmentError
from lotus2_ros.scale.scale import RelativeGeometry
from lotus2_ros.scale.sources import REFERENCE, SOURCES, is_better, metric_sources, relative_source

CONFIG = ScaleConfig()
DISPARITY = torch.rand(24, 36, generator=torch.Generator().manual_seed(0))


def names(sources):
    return [source.name for source in sources]


def test_the_choices_of_the_parameter_are_the_metric_sources_in_their_order():
    declared = next(field for field in fields(ScaleConfig) if field.name == "source")
    metric = [source.name for source in SOURCES if source.metric]
    assert declared.metadata["choices"] == ("auto", *metric, "none")


def test_every_source_that_another_sensor_measures_has_a_topic():
    assert list(REFERENCE_TOPICS) == [source.name for source in SOURCES if not source.yields and source.needs_reference]


def test_sources_need_references_or_what_a_frame_has():
    known = {REFERENCE, *(field.name for field in fields(RelativeGeometry))}
    assert all(set(source.needs) <= known for source in SOURCES)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["reference_depth", "reference_points", "odometry"]),
        ({"camera_height": 1.2}, ["reference_depth", "reference_points", "odometry", "camera_height"]),
        ({"metric_model": "folder"}, ["reference_depth", "reference_points", "odometry", "metric_model"]),
        ({"camera_height": 1.2, "source": "camera_height"}, ["camera_height"]),
        ({"source": "camera_height"}, []),
        ({"camera_height": 1.2, "source": "reference_points"}, ["reference_points"]),
        ({"camera_height": 1.2, "source": "none"}, []),
    ],
)
def test_metric_sources_are_those_selected_and_configured(changes, expected):
    assert names(metric_sources(replace(CONFIG, **changes))) == expected


@pytest.mark.parametrize(("shift", "expected"), [(0.0, "normals"), (0.3, "none")])
def test_a_configured_shift_takes_the_place_of_the_normals(shift, expected):
    assert relative_source(replace(CONFIG, relative_shift=shift)).name == expected


def test_a_configured_shift_is_the_ratio_of_shift_and_scale():
    config = replace(CONFIG, relative_shift=0.3)
    scale = relative_source(config).measure(RelativeGeometry(DISPARITY), None, config)
    assert not scale.metric and scale.source == "none" and math.isnan(scale.age)
    assert scale.shift / scale.scale == pytest.approx(0.3)


def test_better_means_earlier_in_the_order():
    assert is_better("reference_depth", "reference_points") and is_better("reference_points", "camera_height")
    assert not is_better("camera_height", "camera_height") and not is_better("normals", "camera_height")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reference_points", "expected reference for reference_points, got no reference"),
        ("camera_height", "expected normals and camera for camera_height, got no normals and no camera"),
        ("normals", "expected normals and camera for normals, got no normals and no camera"),
    ],
)
def test_a_missing_input_is_named(name, message):
    source = next(source for source in SOURCES if source.name == name)
    with pytest.raises(AlignmentError, match=message):
        source.measure(RelativeGeometry(DISPARITY), None, CONFIG)
