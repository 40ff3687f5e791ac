import argparse
from dataclasses import replace

import pytest
import torch

from lotus2_ros.model.lotus2 import CORE
from lotus2_ros.training import data, loop, stages
from lotus2_ros.training.command import add_arguments, configure, train
from lotus2_ros.training.config import DataConfig, NetworkConfig, StageConfig, TrainingConfig

STAGE = StageConfig(steps=40, batch=1, learning_rate=0.05, warm_up=5)
SMALL = NetworkConfig(
    vae_widths=(8, 8, 16), vae_groups=2, latent_channels=4, heads=2, head_size=16, rotary_axes=(4, 6, 6),
    double_blocks=1, single_blocks=1, core_rank=4, sharpener_rank=2,
)  # fmt: skip


def test_disparity_target_puts_the_quantiles_at_minus_one_and_one_and_the_sky_far():
    depth = torch.linspace(1, 50, 10_000).reshape(100, 100)
    depth[0] = torch.inf
    target = data.disparity_target(depth)
    assert target.shape == (3, 100, 100) and (target[0] == target[2]).all()
    assert (target[0, 0] == -1).all()
    inside = target[0].abs() < 1
    assert inside.float().mean() == pytest.approx(0.96, abs=0.011)
    slope = (target[0][inside] - target[0][inside].mean()) / (1 / depth[inside] - (1 / depth[inside]).mean())
    torch.testing.assert_close(slope, slope.mean().expand_as(slope), rtol=1e-2, atol=0)


def test_normals_target_is_in_the_models_frame_and_the_sky_faces_the_camera():
    normals = torch.tensor([[[1.0, 0, 0], [0, -1, 0], [torch.nan] * 3]])
    expected = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, 1]])  # x left, y up, z toward the camera
    assert torch.equal(data.normals_target(normals)[:, 0].T, expected)


def test_mirroring_a_normal_exchanges_left_and_right():
    left_and_up = torch.tensor([0.6, 0.8, 0.0])[None, :, None, None].expand(1, 3, 2, 5).clone()
    left_and_up[..., 0] = torch.tensor([0.0, 0, 1])[:, None]
    mirrored = data.mirror(left_and_up, "normals")
    assert torch.equal(mirrored[0, :, 0, 0], torch.tensor([-0.6, 0.8, 0.0]))
    assert torch.equal(mirrored[0, :, 0, 4], torch.tensor([0.0, 0, 1]))
    assert torch.equal(data.mirror(left_and_up, "image"), left_and_up.flip(-1))


@pytest.mark.parametrize("field", data.FIELDS)
def test_storage_keeps_what_eight_bits_can(field):
    values = torch.rand(2, 1 if field == "depth" else 3, 4, 5) * 2 - 1
    stored = torch.from_numpy(data._quantize(values, field))
    torch.testing.assert_close(data.dequantize(stored, field), values.expand(-1, 3, -1, -1), atol=1 / 127, rtol=0)


def quadratic():
    """A loss with noise of its own at every step; its minimum is at 3."""
    parameter = torch.nn.Parameter(torch.zeros(()))
    return {"x": parameter}, lambda step, generator: (parameter - 3 - 0.1 * torch.randn((), generator=generator)) ** 2


def test_an_interrupted_run_ends_like_one_that_was_not(tmp_path):
    whole, loss = quadratic()
    loop.train("stage", whole, loss, STAGE, tmp_path / "whole", seed=0, checkpoint_every=100)
    broken, loss = quadratic()

    def interrupted(step, generator):
        if step == 25:
            raise KeyboardInterrupt
        return loss(step, generator)

    with pytest.raises(KeyboardInterrupt):
        loop.train("stage", broken, interrupted, STAGE, tmp_path / "broken", seed=0, checkpoint_every=10)
    resumed, loss = quadratic()
    loop.train("stage", resumed, loss, STAGE, tmp_path / "broken", seed=0, checkpoint_every=10)
    assert float(resumed["x"]) == float(whole["x"]) != 0
    assert float(whole["x"]) > 0.5


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    parameters, loss = quadratic()
    loop.train("stage", parameters, loss, STAGE, tmp_path, seed=0, checkpoint_every=100)
    with pytest.raises(ValueError, match=r"stage\.pt.*another configuration"):
        loop.train("stage", {"y": parameters["x"]}, loss, STAGE, tmp_path, seed=0, checkpoint_every=100)


def test_every_parameter_belongs_to_one_stage():
    model = stages.build(SMALL)
    names = [name for stage in ("vae", "core", "sharpener") for name in stages.parameters_of(model, stage)]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def small_views():
    generator = torch.Generator().manual_seed(0)
    shapes = {"image": 3, "depth": 1, "normals": 3}
    fields = {}
    for field, channels in shapes.items():
        smooth = torch.nn.functional.interpolate(
            torch.rand(6, channels, 4, 5, generator=generator), (32, 40), mode="bilinear"
        )
        fields[field] = torch.from_numpy(data._quantize(smooth * 1.9 - 0.95, field))
    return {(32, 40): fields}


def test_each_stage_changes_its_own_parameters_only(tmp_path):
    stage = StageConfig(steps=2, batch=3, learning_rate=1e-2, warm_up=1)
    config = TrainingConfig(network=SMALL, vae=stage, core_small=stage, core=stage, sharpener=stage, vae_crop=16)
    torch.manual_seed(0)
    model = stages.build(SMALL)
    run = {"vae": stages.train_vae, "core": stages.train_core, "sharpener": stages.train_sharpener}
    for stage_name, train_stage in run.items():
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        train_stage(model, small_views(), config, tmp_path)
        own = stages.parameters_of(model, stage_name)
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert changed and changed <= own.keys()
        if stage_name == "core":
            assert any("lora_" in name for name in changed) and any("lora_" not in name for name in changed)
            assert any("continuity.depth" in n for n in changed) and any("continuity.normals" in n for n in changed)


def test_the_core_learns_a_batch(tmp_path):
    stage = StageConfig(steps=120, batch=6, learning_rate=5e-3, warm_up=5)
    config = TrainingConfig(network=SMALL, core_small=replace(stage, steps=0), core=stage)
    torch.manual_seed(0)
    model = stages.build(SMALL)

    def error():
        image, truth = stages._batch(model, small_views(), "depth", 6, 1.0, torch.Generator().manual_seed(9))
        with torch.no_grad():
            return float((model.core(image, "depth") - truth).square().mean() / truth.square().mean())

    untrained = error()
    stages.train_core(model, small_views(), config, tmp_path)
    assert error() < 0.7 * untrained


def test_a_whole_run_writes_a_bundle_that_loads(tmp_path):
    from lotus2_ros.model.bundle import load_bundle

    stage = StageConfig(steps=2, batch=3, learning_rate=1e-3)
    config = TrainingConfig(
        data=DataConfig(shards=1, scenes_per_shard=2, views_per_scene=2, buckets=((32, 40),), shares=(1.0,)),
        network=SMALL, vae=stage, core_small=stage, core=stage, sharpener=stage, vae_crop=16,
    )  # fmt: skip
    train(config, tmp_path / "work", tmp_path / "bundle", workers=1)
    model = load_bundle(tmp_path / "bundle", device=torch.device("cpu"), dtype=torch.float32)
    assert model.tasks == ("depth", "normals") and model.has_sharpener("depth") and model.has_sharpener("normals")
    assert model.vae.config.scaling_factor != 1.0
    with torch.inference_mode():
        assert model.core(model.encode(torch.zeros(1, 3, 32, 40)), "normals").isfinite().all()
    assert f"{CORE}_normals" in model.adapters


def test_the_command_line_changes_what_it_names_only():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert configure(parser.parse_args(["--output", "x"])) == TrainingConfig()
    changed = configure(parser.parse_args(["--output", "x", "--core-small-steps", "7", "--shards", "2", "--seed", "3"]))
    assert (changed.core_small.steps, changed.data.shards, changed.seed) == (7, 2, 3)
    assert changed.core == TrainingConfig().core
    with pytest.raises(ValueError, match="at least one shard, got 0"):
        configure(parser.parse_args(["--output", "x", "--shards", "0"]))
