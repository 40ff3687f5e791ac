"""Training what Lotus-2 adds to FLUX, on the tiny checkpoint and files in the data sets' formats."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator

from lotus2_ros.cli import main
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.model.lotus2.base import CORE, SHARPENER
from lotus2_ros.model.lotus2.conditioning import position_ids
from lotus2_ros.model.lotus2.flux import pack, unpack
from lotus2_ros.model.lotus2.released import load_released, lotus2_file, save_adapters
from lotus2_ros.model.lotus2.trainable import is_base
from lotus2_ros.model.weights import CheckpointError, read_weights
from lotus2_ros.training import recorded, run
from lotus2_ros.training.batches import Batches
from lotus2_ros.training.config import TrainingConfig, read_config
from lotus2_ros.training.progress import read_progress

CPU = torch.device("cpu")
CLEAN = {"kind": "single_step", "prediction": "clean", "continuity": True}
SHARPEN = {"kind": "sharpener"}


def train(config, folder):
    """The trained model, which weights were changed, the losses."""
    torch.manual_seed(config.seed)
    model = config.network.build(config.tasks, config.stages, CPU)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run.run_stages(Accelerator(cpu=True), model, recorded.load(config.data), config, folder)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    losses = [line["loss"] for stage in config.stages for line in read_progress(folder / f"{stage.name}.jsonl")]
    return model, changed, losses


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_core_and_then_sharpener_are_trained_and_written_as_released(task, run_of, golden, tmp_path):
    files = tmp_path / "lotus2"
    core, changed, losses = train(run_of(CLEAN, tasks=(task,)), tmp_path / "core")
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert changed == core.trainable_parameters("core").keys()
    assert len(changed) == 4 + 2 * (2 * 12 + 3 * 3) and not any(is_base(name) for name in changed)
    save_adapters(core, files)
    assert {file.name for file in files.iterdir()} == {
        lotus2_file(files, part, task).name for part in (CORE, "continuity")
    }

    sharp, changed, losses = train(run_of(SHARPEN, tasks=(task,), lotus2=files), tmp_path / "sharp")
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert changed == sharp.trainable_parameters("sharpener").keys() and all(SHARPENER in name for name in changed)
    save_adapters(sharp, files)
    for part in (CORE, SHARPENER, "continuity"):
        ours, reference = (read_weights(lotus2_file(folder, part, task)) for folder in (files, golden))
        assert {key: tensor.shape for key, tensor in ours.items()} == {k: t.shape for k, t in reference.items()}

    for component in golden.iterdir():
        if component.is_dir():
            (files / component.name).symlink_to(component)
    loaded = load_released(files, device=CPU, dtype=torch.float32, tasks=(task,))
    latent = torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded.core(latent, task), core.core(latent, task))
        assert torch.equal(loaded.velocity(latent, task, 0.5), sharp.velocity(latent, task, 0.5))
        plain = load_released(golden, device=CPU, dtype=torch.float32, tasks=(task,))
        assert not torch.allclose(loaded.core(latent, task), plain.core(latent, task), rtol=0.1)


def test_the_continuity_file_is_what_the_reference_reads(run_of, tmp_path):
    config = run_of(CLEAN)
    model = config.network.build(config.tasks, config.stages, CPU)
    save_adapters(model, tmp_path / "lotus2")
    with lotus2_file(tmp_path / "lotus2", "continuity", "depth").open("rb") as file:
        weights = torch.load(file, weights_only=True)
    assert weights.keys() == {f"lcm.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}


def test_an_untrained_core_is_flux_itself(run_of, golden):
    """Adapters and continuity module change nothing before they are trained; each task has its own."""
    config = run_of(CLEAN, SHARPEN, tasks=("depth", "normals"))
    model = config.network.build(config.tasks, config.stages, CPU)
    assert {name: adapter.r for name, adapter in model.adapters.items()} == {
        "core_predictor_depth": 128, "detail_sharpener_depth": 128,
        "core_predictor_normals": 256, "detail_sharpener_normals": 256,
    }  # fmt: skip
    latent = torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        depth = model.core(latent, "depth")
        model.transformer.disable_adapters()
        base = model.transformer(
            hidden_states=pack(latent), timestep=torch.tensor([1.0]) / 1000, guidance=torch.tensor([3.504]),
            encoder_hidden_states=model.conditioner.prompt_embeds, pooled_projections=model.conditioner.pooled,
            txt_ids=torch.zeros(512, 3), img_ids=position_ids(model.conditioner.prompt_embeds, 2, 3)[512:],
        ).sample  # fmt: skip
    torch.testing.assert_close(depth, unpack(base, 4, 6), rtol=1e-4, atol=1e-4)


def test_a_base_in_bfloat16_carries_adapters_in_float32(run_of, tmp_path):
    """Two tasks in turn; steps far below bfloat16's resolution are not lost."""
    config = run_of(CLEAN, SHARPEN, tasks=("depth", "normals"), base_dtype="bfloat16")
    model, changed, losses = train(config, tmp_path)
    assert len(losses) == 4 and np.isfinite(losses).all()
    assert {is_base(name): parameter.dtype for name, parameter in model.named_parameters()} == {
        True: torch.bfloat16, False: torch.float32,
    }  # fmt: skip
    assert not any(is_base(name) for name in changed)
    assert all(
        any(f"{stage}_{task}" in name for name in changed) for stage in (CORE, SHARPENER) for task in config.tasks
    )


def test_gradient_checkpointing_does_not_change_gradients(run_of, tmp_path):
    config = run_of(CLEAN)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = config.network.build(config.tasks, config.stages, CPU)
        model.requires_grad_(False)
        parameters = model.trainable_parameters("core")
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(0.02 * torch.randn(parameter.shape))
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        if checkpointing:
            model.transformer.enable_gradient_checkpointing()
        batch = Batches(recorded.load(config.data), config.tasks, 2, multiple=model.multiple, jitter=False)[0]
        config.stages[0].objective.loss(model, batch).backward()
        gradients.append({name: parameter.grad for name, parameter in parameters.items()})
    assert all(gradient.abs().max() > 0 for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-8)


def write_run(config, path):
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert read_config(path, []) == config
    return path


def test_the_command_trains_what_prepare_takes(run_of, golden, tmp_path, capsys):
    path = write_run(run_of(CLEAN, SHARPEN, gradient_checkpointing=True), tmp_path / "tiny.yaml")
    assert main(["train", str(path), "--work", str(tmp_path / "work"), "--output", str(tmp_path / "lotus2")]) == 0
    sources = ["--flux", str(golden), "--lotus2", str(tmp_path / "lotus2")]
    assert main(["prepare", *sources, "--tasks", "depth", "--device", "cpu", "--output", str(tmp_path / "bundle")]) == 0
    assert (tmp_path / "bundle" / "bundle.json").is_file()
    (tmp_path / "lotus2" / "lotus-2_core_predictor_depth.safetensors").unlink()
    again = ["--set", f"network.lotus2={tmp_path / 'lotus2'}", "--output", str(tmp_path / "again")]
    assert main(["train", str(path), *again]) == 2
    assert "lotus-2_core_predictor_depth.safetensors: file not found" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_follow_the_mean_gradient_of_their_batches(run_of, tmp_path):
    """It is what AdamW remembers after one step."""
    config = run_of(CLEAN)
    path = write_run(config, tmp_path / "tiny.yaml")
    # Without a GPU `accelerate launch` starts one process only.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["train", str(path), "--work", str(tmp_path / "work"), "--output", str(tmp_path / "lotus2")]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "lotus2_ros.cli", *command, "--set", "stages.single_step.steps=1"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        timeout=allowed(200),
    )
    assert done.returncode == 0, done.stderr
    remembered = read_weights(tmp_path / "work" / "single_step.safetensors")
    got = [remembered[f"optimizer.0.{index}.exp_avg"] / (1 - 0.9) for index in range(len(mean_gradient(config, (0,))))]
    error = {ranks: distance(got, mean_gradient(config, ranks)) for ranks in ((0, 1), (0,), (1,))}
    assert error[0, 1] < 1e-4 and min(error[(0,)], error[(1,)]) > 0.02


def mean_gradient(config, ranks):
    """Of the untrained weights, over the first batches of these processes, clipped."""
    torch.manual_seed(config.seed)
    model = config.network.build(config.tasks, config.stages, CPU)
    parameters = list(model.requires_grad_(False).trainable_parameters("core").values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    seed, groups = hash((config.seed, 0)), recorded.load(config.data)
    for rank in ranks:
        batches = Batches(groups, config.tasks, 2, multiple=model.multiple, jitter=False, seed=seed, rank=rank)
        (config.stages[0].objective.loss(model, batches[0]) / len(ranks)).backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    return [parameter.grad for parameter in parameters]


def distance(tensors, others):
    """Relative to the norm of the others."""
    difference = sum((a - b).square().sum() for a, b in zip(tensors, others, strict=True))
    return float((difference / sum(b.square().sum() for b in others)).sqrt())


@pytest.mark.parametrize(
    ("objectives", "changes", "message"),
    [
        ((SHARPEN,), {}, "expected a trained core before the sharpener, got none; set network.lotus2"),
        (
            (CLEAN,),
            {"tasks": ("depth", "normals"), "ranks": {"depth": 4}},
            "for every task, got none for normals",
        ),
        (({"kind": "autoencoder", "crop": 8, "noise": 0.1},), {}, r"network.source released \(.*\), got autoencoder"),
        (({"kind": "stochastic_flow", "steps": 2},), {}, r"network.source released \(.*\), got stochastic_flow"),
        ((CLEAN,), {"base_dtype": "bfloat16", "mixed_precision": "no"}, "because the base is in bfloat16, got no"),
    ],
)
def test_runs_that_cannot_be_are_refused(objectives, changes, message, run_of):
    content = run_of(CLEAN, tasks=changes.get("tasks", ("depth",))).model_dump(mode="json")
    content["network"] |= {key: changes[key] for key in ("ranks", "base_dtype") if key in changes}
    content["stages"] = [content["stages"][0] | {"objective": objective} for objective in objectives]
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**content)


def test_ranks_must_be_those_of_the_files(run_of, golden):
    config = run_of(CLEAN, tasks=("normals",), lotus2=golden)
    network = config.network.model_copy(update={"ranks": {"normals": 8}})
    with pytest.raises(CheckpointError, match=r"core_predictor_normal\.safetensors: .* of shape \(8, .*got \(256, "):
        network.build(config.tasks, config.stages, CPU)
