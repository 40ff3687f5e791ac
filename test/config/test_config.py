import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.config import Config, ConfigError, ModelConfig, NodeConfig, ScaleConfig, aliases, check, walk
from lotus2_ros.config import config as config_module

ITEMS = dict(walk())


def test_every_default_is_a_valid_value_with_a_help_text():
    for name, item in walk():
        assert check(name, item, item.default) == item.default
        assert item.metadata["help"]


def test_the_pause_before_a_retry_doubles_ten_times():
    """Doubled without a limit, after a thousand retries it is no number any more."""
    config = NodeConfig(retry_backoff=0.5)
    assert [config.pause_before(retry) for retry in (0, 1, 2, 10, 11, 10**6)] == [0.5, 1.0, 2.0, 512.0, 512.0, 512.0]


def test_values_and_updated_are_inverse():
    changed = Config().updated({"sharp.steps": 3, "model.tasks": ["normals"], "cloud.max_depth": 8})
    assert changed.sharp.steps == 3 and changed.model.tasks == ("normals",)
    assert isinstance(changed.cloud.max_depth, float)
    assert Config().updated(changed.values()) == changed != Config()
    assert list(Config().values()) == list(ITEMS)


@pytest.mark.parametrize(("written", "meant"), [(True, "yes"), (False, "no"), ("auto", "auto")])
def test_yes_and_no_may_be_the_booleans_of_yaml(written, meant):
    assert Config().updated({"input.rectified": written}).input.rectified == meant


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sharp.steps", -1, "expected 0 to 50, got -1"),
        ("sharp.steps", 2.0, "expected int, got 2.0"),
        ("sharp.period", math.nan, "expected 0.0 to 3600.0, got nan"),
        ("sharp.enabled", 1, "expected bool"),
        ("model.device", "tpu", "expected one of auto, cpu, cuda, openvino:DEVICE, got 'tpu'"),
        ("model.tasks", [], r"expected at least one of auto, depth, normals, got \[\]$"),
        ("model.tasks", ["depth", "depth"], "expected a selection"),
        ("model.tasks", "depth", "expected a list of strings"),
        ("model.tasks", 2, "expected a list of strings, got 2"),
        ("model.warm_up", [], r"expected at least one of none, WIDTHxHEIGHT, got \[\]; use \[none\] for none"),
        ("scale.points_transform", "0 0 1e999 0 0 0 1", "expected finite numbers and a quaternion that is not zero"),
        ("scale.points_transform", "0 0 1 0 0 0 0", "expected finite numbers and a quaternion that is not zero"),
        ("scale.points_transform", "0 0 nan 0 0 0 1", "expected one of tf, X Y Z"),
        ("model.warm_up", ["640x480", "0x480"], "got .*'0x480'"),
        ("model.warm_up", ["WIDTHxHEIGHT"], "none, WIDTHxHEIGHT, got"),
        ("model.warm_up", ["640x480x3"], "none, WIDTHxHEIGHT, got"),
        ("sharp.share", 1.01, "expected 0.0 to 1.0, got 1.01"),
        ("sharp.speed", 1, "unknown parameter sharp.speed; did you mean sharp.period"),
    ],
)
def test_wrong_values_say_what_was_expected_and_what_came(name, value, message):
    with pytest.raises(ConfigError, match=message):
        Config().updated({name: value})


def test_the_nearest_point_is_nearer_than_the_farthest():
    with pytest.raises(ConfigError, match=r"cloud.min_depth: expected at most cloud.max_depth \(2\), got 3"):
        Config().updated({"cloud.min_depth": 3.0, "cloud.max_depth": 2.0})
    assert Config().updated({"cloud.min_depth": 3.0, "cloud.max_depth": 0.0}).cloud.min_depth == 3.0  # 0: no limit


def test_a_former_name_sets_the_parameter_and_is_announced_once(monkeypatch, caplog):
    monkeypatch.setattr(config_module, "_announced", set())
    for _ in range(2):
        assert Config().updated({"model.conditioning": "float32"}).model.timestep_dtype == "float32"
    (record,) = caplog.records
    assert record.message == "parameter model.conditioning is now called model.timestep_dtype; the old name still works"


def test_both_names_of_a_parameter_at_once_are_refused():
    with pytest.raises(ConfigError, match=r"model\.timestep_dtype alone, got it together with .* model\.conditioning"):
        Config().updated({"model.conditioning": "float32", "model.timestep_dtype": "float32"})


def test_no_former_name_is_a_parameter_again():
    assert not aliases().keys() & ITEMS.keys()
    assert list(aliases().values()) == [name for name, item in ITEMS.items() if item.metadata["alias"]]


@pytest.mark.parametrize("sizes", [["none"], ["640x480"], ["1280x720", "640x480"]])
def test_sizes_of_images_are_taken(sizes):
    assert Config().updated({"model.warm_up": sizes}).model.warm_up == tuple(sizes)


def test_a_wrong_value_in_the_constructor_is_refused_too():
    with pytest.raises(ConfigError, match=r"model\.device"):
        Config(model=ModelConfig(device="tpu"))


@given(name=st.sampled_from([n for n, i in ITEMS.items() if i.metadata["limits"]]), value=st.floats(-1e7, 1e7))
def test_exactly_the_values_within_the_limits_are_taken(name, value):
    item = ITEMS[name]
    value = type(item.default)(value)
    low, high = item.metadata["limits"]
    inside = low <= value <= high
    try:
        taken = dict(Config().updated({name: value}).values())[name] == value
    except ConfigError:
        taken = False
    assert taken == inside


def test_all_tasks_are_wanted_unless_some_are_named():
    assert ModelConfig().wanted_tasks is None
    assert ModelConfig(tasks=("normals",)).wanted_tasks == ("normals",)


@pytest.mark.parametrize("start", [0.0, 1.0, 1_700_000_000.0, 4_000_000_000.0])
def test_a_stamp_that_is_just_the_slop_away_is_near(start):
    """At 10 Hz the frame before is 0.1 s away, and float64 rounds that to either side."""
    config = ScaleConfig(reference_slop=0.1)
    stamps = [start + 0.1 * number for number in range(20)]
    assert all(config.is_near(*pair) and config.is_near(*pair[::-1]) for pair in pairwise(stamps))
    assert not any(config.is_near(first, second + 1e-5) for first, second in pairwise(stamps))
