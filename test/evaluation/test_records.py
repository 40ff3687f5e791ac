import json

import pytest
import torch

from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.records import angle_file, measure_all, prepare_folder, read_records
from lotus2_ros.evaluation.sets import EvaluationSet

SETTINGS = {"views": 3, "frames": ["a"]}


class Killed(BaseException):
    pass


def parts_of(seen, kill_at=None):
    """Two sets of 4 and 3 samples that write down what is run."""

    def run(estimator, sample, steps):
        if len(seen) == kill_at:
            raise Killed
        seen.append(sample.name)
        return {"core": {"depth": {"abs_rel": len(sample.name) + steps / 7}}}, {"core": torch.arange(3.0)}

    def samples(name, count):
        return [Sample(f"{name}{'x' * index}", torch.zeros(1)) for index in range(count)]

    return [
        EvaluationSet("first", "depth", samples("a", 4), run),
        EvaluationSet("second", "normals", samples("b", 3), run),
    ]


def test_a_killed_run_goes_on_where_it_was_with_the_same_result(tmp_path):
    whole, parts_seen, rest = [], [], []
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        prepare_folder(folder, SETTINGS, resume=False)
    measure_all(None, parts_of(whole), 2, tmp_path / "whole")
    with pytest.raises(Killed):
        measure_all(None, parts_of(parts_seen, kill_at=3), 2, tmp_path / "killed")
    with (tmp_path / "killed/records-0.jsonl").open("a") as file:
        file.write('{"key": ["depth", "first", 3], "core": {"de')  # in the middle of a line
    prepare_folder(tmp_path / "killed", SETTINGS, resume=True)
    measure_all(None, parts_of(rest), 2, tmp_path / "killed")
    assert len(whole) == 7 and parts_seen + rest == whole
    assert read_records(tmp_path / "killed") == read_records(tmp_path / "whole")
    files = [{file.name for file in (tmp_path / name / "angles").iterdir()} for name in ("whole", "killed")]
    assert files[0] == files[1] and len(files[0]) == 7
    assert angle_file(tmp_path / "whole", parts_of([])[1], "core", 2).name in files[0]


def test_processes_share_the_samples_and_the_result_is_that_of_one(tmp_path):
    alone, shared = [], [[], [], []]
    prepare_folder(tmp_path / "alone", SETTINGS, resume=False)
    measure_all(None, parts_of(alone), 1, tmp_path / "alone")
    prepare_folder(tmp_path / "shared", SETTINGS, resume=False)
    for process in range(3):
        measure_all(None, parts_of(shared[process]), 1, tmp_path / "shared", process, 3)
    assert [len(seen) for seen in shared] == [3, 2, 2] and sorted([name for seen in shared for name in seen]) == sorted(
        alone
    )
    assert read_records(tmp_path / "shared") == read_records(tmp_path / "alone")


def test_without_resume_it_starts_anew_and_another_evaluation_is_not_gone_on_with(tmp_path):
    prepare_folder(tmp_path, SETTINGS, resume=True)
    measure_all(None, parts_of([]), 1, tmp_path)
    with pytest.raises(ValueError, match=r"resume an evaluation with views 4, got 3"):
        prepare_folder(tmp_path, {**SETTINGS, "views": 4}, resume=True)
    assert len(read_records(tmp_path)) == 7
    prepare_folder(tmp_path, {**SETTINGS, "views": 4}, resume=False)
    assert not read_records(tmp_path) and not list((tmp_path / "angles").iterdir())
    assert json.loads((tmp_path / "settings.json").read_text())["views"] == 4


def test_a_sample_that_cannot_be_measured_is_named(tmp_path):
    def run(estimator, sample, steps):
        raise ValueError("expected at least 20 pixels with depth, got 0")

    prepare_folder(tmp_path, SETTINGS, resume=False)
    with pytest.raises(ValueError, match="nyuv2, sample 1: expected at least 20"):
        measure_all(None, [EvaluationSet("nyuv2", "depth", [0, 0], run)], 1, tmp_path, process=1, processes=2)
