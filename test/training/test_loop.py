"""The loop: it learns, and a run that was killed goes on with the same losses."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from forks import RENDER_IN_FORKS

from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.model.lotus2.bundle import load_bundle
from lotus2_ros.training import loop
from lotus2_ros.training.batches import Batches
from lotus2_ros.training.checkpoint import resume, save
from lotus2_ros.training.config import StageConfig, read_config
from lotus2_ros.training.progress import read_progress

pytestmark = pytest.mark.slow

SMOKE = Path(__file__).parents[2] / "config" / "train" / "smoke.yaml"
CHANGES = [
    "data.shards=1", "data.scenes_per_shard=2", "stages.vae.steps=12", "stages.core.steps=40",
    "stages.sharpener.steps=4", "report_every=2", "checkpoint_every=4", "panels_every=100",
]  # fmt: skip


PROGRAM = f"{RENDER_IN_FORKS}\nfrom lotus2_ros.cli import main\nraise SystemExit(main())"


def command(folder: Path) -> list[str]:
    return [
        "-c", PROGRAM, "train", str(SMOKE), "--output", str(folder / "model"),
        "--work", str(folder / "work"), "--workers", "1", "--set", *CHANGES,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, forks) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = forks.run(*command(folder), seconds=200)
    assert done.returncode == 0, done.stderr
    return folder


def losses(folder: Path) -> dict[str, list[tuple[float, float]]]:
    stages = (stage.name for stage in read_config(SMOKE, CHANGES).stages)
    return {name: [(line["step"], line["loss"]) for line in read_progress(folder / "work" / f"{name}.jsonl")]
            for name in stages}  # fmt: skip


def test_a_killed_run_goes_on_with_the_same_losses_and_gives_the_same_model(whole, forks, tmp_path):
    log = tmp_path / "log"
    with log.open("w") as output:
        broken = forks.start(command(tmp_path), {**os.environ}, stdout=output, stderr=output)
    curve, checkpoint = tmp_path / "work" / "core.jsonl", tmp_path / "work" / "core.safetensors"
    begun = time.monotonic()
    while len(read_progress(curve)) < 5 or not checkpoint.exists():
        assert broken.poll() is None and time.monotonic() - begun < allowed(120), log.read_text()
        time.sleep(0.01)
    broken.kill()
    broken.wait(allowed(60))
    assert len(read_progress(curve)) < 20, "the run ended before it was killed"
    resumed = forks.run(*command(tmp_path), seconds=200)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(tmp_path) == losses(whole)
    first, second = ((folder / "model" / "model.safetensors").read_bytes() for folder in (whole, tmp_path))
    assert first == second


def test_a_run_leaves_curves_pictures_and_a_model_that_loads(whole):
    assert [step for step, _ in losses(whole)["core"]] == list(range(2, 41, 2))
    events = {path.parent.name: path.read_bytes() for path in (whole / "work" / "tensorboard").glob("*/events*")}
    assert events.keys() == {"vae", "core", "sharpener"}
    assert all(word in events["core"] for word in (b"loss", b"learning_rate", b"depth", b"normals", b"PNG"))
    model = load_bundle(whole / "model", device=torch.device("cpu"), dtype=torch.float32)
    assert model.tasks == ("depth", "normals") and model.has_sharpener("normals")
    manifest = json.loads((whole / "model" / "bundle.json").read_text())
    assert manifest["name"] == "smoke" and manifest["components"]["vae"]["scaling_factor"] != 1


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    save(tmp_path / "core.safetensors", 5, {"x": parameter}, [optimizer])
    assert resume(tmp_path / "core.safetensors", {"x": parameter}, [optimizer]) == 5
    for other in ({"y": parameter}, {"x": torch.nn.Parameter(torch.ones(4))}):
        with pytest.raises(ValueError, match=r"core\.safetensors: belongs to another configuration"):
            resume(tmp_path / "core.safetensors", other)
    with pytest.raises(ValueError, match=r"core\.safetensors: belongs to another configuration"):
        resume(tmp_path / "core.safetensors", {"x": parameter}, mean={"x": torch.ones(3)})


def test_accumulated_batches_are_one_step_of_their_mean(network_of, group, tmp_path):
    """Two batches to a step are as good as their two gradients' mean."""
    model, stage, config = network_of("clean", accumulate=2, steps=1, warm_up=0, weight_decay=0.0)
    batches = Batches([group], ("depth",), 2, multiple=model.multiple)
    parameters = model.trainable_parameters("core")
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    (sum(stage.objective.loss(model, batches[number]) for number in (0, 1)) / 2).backward()
    torch.nn.utils.clip_grad_norm_(parameters.values(), loop.GRADIENT_NORM)
    twin, _, _ = network_of("clean")
    trained = twin.trainable_parameters("core")
    loop.train(Accelerator(), twin, trained, batches, stage, config, tmp_path, dict)
    moved = 0
    for name, parameter in parameters.items():
        # Adam's first step goes by the sign of the gradient.
        clear = parameter.grad.abs() > 1e-6
        expected = parameter.detach() - stage.learning_rate * parameter.grad.sign()
        torch.testing.assert_close(trained[name][clear], expected[clear], atol=2e-5, rtol=0)
        moved += int(clear.sum())
    assert moved > 1000


def test_a_stage_may_keep_a_share_of_what_it_began_with(network_of, group, tmp_path):
    before = {name: value.clone() for name, value in network_of("clean")[0].trainable_parameters("core").items()}
    ends = {}
    for kept in (0.0, 0.25):
        model, stage, config = network_of("clean", interpolate_start=kept, steps=3)
        parameters = model.trainable_parameters("core")
        batches = Batches([group], ("depth",), 2, multiple=model.multiple)
        folder = tmp_path / str(kept)
        folder.mkdir()
        loop.train(Accelerator(), model, parameters, batches, stage, config, folder, dict)
        ends[kept] = parameters
        again = network_of("clean")[0].trainable_parameters("core")
        assert resume(folder / "core.safetensors", again) == 3  # what is on disk is what the next stage begins with
        assert all(torch.equal(again[name], value) for name, value in parameters.items())
    assert any(not torch.equal(value, before[name]) for name, value in ends[0.0].items())
    for name, value in ends[0.25].items():
        torch.testing.assert_close(value, 0.75 * ends[0.0][name] + 0.25 * before[name], atol=1e-6, rtol=0)


def test_a_stage_may_leave_the_mean_of_its_weights(network_of, group, tmp_path):
    """Of those after `average_after` steps; a run that was stopped in between leaves the same."""

    def trained(steps: int, folder: str, **changes):
        model, stage, config = network_of("clean", steps=steps, schedule="constant", **changes)
        parameters = model.trainable_parameters("core")
        batches = Batches([group], ("depth",), 2, multiple=model.multiple)
        (tmp_path / folder).mkdir(exist_ok=True)
        loop.train(Accelerator(), model, parameters, batches, stage, config, tmp_path / folder, dict)
        return {name: value.detach().clone() for name, value in parameters.items()}

    lasts = [trained(steps, f"last{steps}") for steps in (2, 3, 4)]
    whole = trained(4, "whole", average_after=1)
    for name, value in whole.items():
        torch.testing.assert_close(value, sum(last[name] for last in lasts) / 3, atol=1e-6, rtol=0)
    assert any(not torch.equal(value, lasts[-1][name]) for name, value in whole.items())

    def stop_after_three(path, step, *state):
        save(path, step, *state)
        if step == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "save", stop_after_three)
        trained(4, "stopped", average_after=1)
    resumed = trained(4, "stopped", average_after=1)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("asked", "multiplies", "expected"), [("bf16", True, True), ("bf16", False, False), ("no", True, False)]
)
def test_mixed_precision_is_where_the_device_multiplies_bfloat16(
    network_of, group, tmp_path, monkeypatch, asked, multiplies, expected
):
    """Elsewhere it would be slower than float32."""
    seen = []
    forward = loop.ObjectiveModule.forward

    def watched(self, batch):
        seen.append(torch.is_autocast_enabled("cpu"))
        return forward(self, batch)

    monkeypatch.setattr(loop, "multiplies_bfloat16", lambda device: multiplies)
    monkeypatch.setattr(loop.ObjectiveModule, "forward", watched)
    model, stage, config = network_of("clean", steps=2, mixed_precision=asked)
    batches = Batches([group], ("depth",), 2, multiple=model.multiple)
    loop.train(Accelerator(), model, model.trainable_parameters("core"), batches, stage, config, tmp_path, dict)
    assert seen == [expected, expected]


@pytest.fixture
def network_of(network):
    """An untrained model, its stage and run."""
    from lotus2_ros.training.objectives import SingleStep

    def make(prediction: str, **changes):
        objective = SingleStep(kind="single_step", prediction=prediction, continuity=True)
        fields = {"name": "core", "objective": objective, "steps": 4, "batch": 2, "learning_rate": 1e-3} | changes
        stage = StageConfig(**fields)
        torch.manual_seed(0)
        return (
            network.build(("depth",), (stage,), torch.device("cpu")),
            stage,
            read_config(SMOKE, ["report_every=1", "checkpoint_every=1"]),
        )

    return make
