from __future__ import annotations

import json
import math

import pytest

from benchmarks import families

FEW = """
from benchmarks import families
every = families.scene_sets
families.scene_sets = lambda *given: [held_out for held_out in every(*given) if held_out.name == "room"]
families.ROUNDS = 1
"""


@pytest.mark.slow
def test_families_are_trained_and_measured_beside_each_other(bench, tmp_path):
    folders = {name: str(tmp_path / name) for name in ("scenes", "work", "output")}
    options = [text for name, path in folders.items() for text in (f"--{name}", path)]
    bench("benchmarks.families", "--quick", "--views", "1", "--only", "lotus-2", "lotus-g", *options, before=FEW)
    rows = json.loads((tmp_path / "output/families.json").read_text())
    assert rows.keys() == {"lotus-2", "lotus-g"}
    assert rows["lotus-2"]["AUSE"] is None and math.isfinite(rows["lotus-g"]["AUSE"])
    for row in rows.values():
        assert all(row[column] > 0 for column in ("AbsRel / row", "normals, degrees", "ms", "million parameters"))


def test_families_have_the_same_budget_and_shape_of_vae():
    configs = [
        families.configuration(*run, families.STAGES, (5, 6), 0.25, quick=False) for run in families.FAMILIES.values()
    ]
    for config in configs:
        steps = {stage.name: stage.steps for stage in config.stages}
        assert steps == dict(zip(families.STAGES, (5, 6), strict=True))
        assert (config.data, config.seed, config.tasks) == (configs[0].data, configs[0].seed, configs[0].tasks)
        budgets = [
            [stage.model_dump(exclude={"objective", "single_blocks"}) for stage in each.stages]
            for each in (config, configs[0])
        ]
        assert budgets[0] == budgets[1]
        assert all(stage.size == 0.25 for stage in config.stages)
        vae = ("vae_widths", "vae_groups", "latent_channels", "prior")
        assert all(getattr(config.network, name) == getattr(configs[0].network, name) for name in vae)
    for core in range(2):
        objectives = [config.stages[core].objective.model_dump() for config in configs]
        kinds = [
            (config.network.source, each.get("reconstruction"))
            for config, each in zip(configs, objectives, strict=True)
        ]
        assert kinds == [("scratch", None), *[("unet", True), ("unet", False)] * 2]
        own = {"kind", "reconstruction", "prediction", "continuity"}
        weights = [{key: value for key, value in each.items() if key not in own} for each in objectives]
        assert all(each == weights[0] for each in weights)
    assert [config.network.generative for config in configs[1:]] == [False, False, True, True]


def test_families_are_trained_by_the_stages_that_are_chosen():
    run = families.FAMILIES["lotus-d"]
    config = families.configuration(*run, ("core",), (9,), quick=False)
    assert [(stage.name, stage.steps, stage.size) for stage in config.stages] == [("core", 9, 0.75)]
    assert families.configuration(*run, ("core",), quick=False).stages[-1].steps == 2400
