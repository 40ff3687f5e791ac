from pathlib import Path

import pytest
import yaml

from lotus2_ros.training.config import TrainingConfig, read_config
from lotus2_ros.training.objectives import SingleStep

RUNS = sorted((Path(__file__).parents[2] / "config" / "train").glob("*.yaml"))
WITHOUT_PRIOR = next(path for path in RUNS if path.stem == "without_prior")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_runs_that_come_with_the_package_are_valid(path):
    assert isinstance(read_config(path, []), TrainingConfig)


def test_changes_reach_what_they_name_and_nothing_else():
    plain = read_config(WITHOUT_PRIOR, [])
    changed = read_config(WITHOUT_PRIOR, ["stages.core.steps=7", "data.shards=2", "seed=3", "tasks=[depth]"])
    stages = {stage.name: stage for stage in changed.stages}
    assert (stages["core"].steps, changed.data.shards, changed.seed, changed.tasks) == (7, 2, 3, ("depth",))
    assert stages["core"].objective == SingleStep(kind="single_step", prediction="clean", continuity=True)
    assert stages["vae"] == plain.stages[0] and changed.network == plain.network


@pytest.mark.parametrize(
    "change, expected",
    [
        ("stages.core.steps=0", "stages.2.steps: expected greater than or equal to 1, got '0'"),
        ("stages.core.stepz=5", "unknown key stages.2.stepz"),
        ("stages.nothing.steps=5", "there is no 'nothing'"),
        ("network.heads=many", "network"),
        ("stages.core.objective={kind: magic}", "'magic'"),
        ("stages.core.name=vae", "stages of different names"),
        (
            "stages.core.single_blocks=9",
            "single_blocks that grow from stage to stage to at most 8, got [4, 9, 4, 4, 8, 8, 8, 8]",
        ),
        (
            "stages.core_small.single_blocks=5",
            "single_blocks that grow from stage to stage to at most 8, got [5, 4, 4, 4, 8, 8, 8, 8]",
        ),
        ("stages.steady.average_after=9000", "stages.7: expected average_after below steps, 7100, got 9000"),
        (
            "stages.sharpener.objective={kind: sharpener_end_to_end, decoded: 1, angles: 1, power: 1, decoder: true}",
            "unknown key stages.8.objective.sharpener_end_to_end.decoder",
        ),
        (
            "stages.sharpener.objective={kind: uncertainty}",
            "expected tasks [depth] for the objective uncertainty, got None",
        ),
        ("checkpoint_every=75", "multiple of report_every"),
        ("seed", "expected key=value, got 'seed'"),
        ("seed.more.deep=1", "'seed.more.deep'"),
    ],
)
def test_a_wrong_value_is_named(change, expected):
    with pytest.raises(ValueError) as error:
        read_config(WITHOUT_PRIOR, [change])
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_missing_key_and_a_file_that_is_no_run_are_named(tmp_path):
    path = tmp_path / "run.yaml"
    content = yaml.safe_load(WITHOUT_PRIOR.read_text())
    del content["network"]["heads"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"run\.yaml: missing key network.*heads"):
        read_config(path, [])
    path.write_text("- just\n- a list\n")
    with pytest.raises(ValueError, match=r"run\.yaml: expected a mapping, got list"):
        read_config(path, [])
    path.write_text("a: [1")
    with pytest.raises(ValueError, match=r"run\.yaml: not YAML"):
        read_config(path, [])


def test_only_a_network_from_nothing_grows():
    with pytest.raises(ValueError, match="no single_blocks in stages unless network"):
        read_config(WITHOUT_PRIOR.with_stem("lotus_d"), ["stages.core.single_blocks=2"])


def test_former_keys_and_objectives_still_work_and_are_announced_once(caplog, tmp_path):
    text = WITHOUT_PRIOR.read_text().replace("interpolate_start:", "kept:").replace("average_after:", "mean_from:")
    text = text.replace("random_convolution:", "filtered:").replace("close_up:", "of_things:")
    former = tmp_path / "former.yaml"
    former.write_text(text.replace("sharpen_by_default:", "sharpens:"))
    assert read_config(former, []) == read_config(WITHOUT_PRIOR, [])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 5 and f"{former}: kept is now called interpolate_start; the old name still works" in said
    lotus = WITHOUT_PRIOR.with_stem("lotus_d")
    former.write_text(lotus.read_text().replace("kind: lotus", "kind: lotus1"))
    assert read_config(former, []) == read_config(lotus, [])
    assert "lotus1_end_to_end is now called lotus_end_to_end" in caplog.text


def test_a_former_key_of_a_change_works_and_both_names_at_once_are_refused():
    changed = read_config(WITHOUT_PRIOR, ["stages.core.kept=0.25"])
    assert next(stage for stage in changed.stages if stage.name == "core").interpolate_start == 0.25
    with pytest.raises(
        ValueError, match=r"without_prior\.yaml: expected interpolate_start alone, .* former name; remove kept"
    ):
        read_config(WITHOUT_PRIOR, ["stages.core.kept=0.25", "stages.core.interpolate_start=0.5"])
