from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.model.image_size import process_size
from lotus2_ros.model.lotus2.base import CORE, SHARPENER
from lotus2_ros.model.lotus2.trainable import LORA_TARGETS, TrainableLotus2


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((720, 1280), (576, 1024)),
        ((375, 1242), (304, 992)),
        ((480, 640), (480, 640)),
        ((101, 150), (96, 128)),  # the longer side follows the shorter: not 144
        ((1280, 720), (1024, 576)),
        ((16, 16), (16, 16)),
    ],
)
def test_process_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert process_size(*size, resolution=1024, multiple=16) == expected


@given(st.integers(64, 5000), st.integers(64, 5000), st.integers(1, 5))
def test_process_size_fits_and_keeps_the_shape(height: int, width: int, power: int) -> None:
    multiple = 2**power
    if min(height, width) / max(height, width) * 512 < multiple + 1:
        return
    h, w = process_size(height, width, 512, multiple)
    assert h % multiple == w % multiple == 0
    assert 0 < h <= min(height, 512)
    assert 0 < w <= min(width, 512)
    assert process_size(width, height, 512, multiple) == (w, h)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (120, 160)),  # 4:3 is what the resolution is of
        ((375, 1242), (72, 232)),
        ((1242, 375), (232, 72)),
        ((500, 500), (136, 136)),
        ((100, 200), (96, 192)),  # brought down to 97 x 195, and then to multiples
        ((40, 120), (40, 120)),  # has fewer pixels: stays
    ],
)
def test_process_size_by_area(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert process_size(*size, resolution=160, multiple=8, by_area=True) == expected


@given(st.integers(200, 5000), st.floats(1, 6), st.booleans())
def test_process_size_by_area_costs_what_an_image_of_4_to_3_does(shorter: int, aspect: float, upright: bool) -> None:
    sides = (round(shorter * aspect), shorter) if upright else (shorter, round(shorter * aspect))
    height, width = process_size(*sides, 160, 8, by_area=True)
    assert height * width <= 120 * 160
    # Each side lost less than a multiple to rounding, the longer one for the shorter's too.
    fitted = min(height, width)
    assert (fitted + 8) * (max(height, width) + 8) * (1 + 8 / fitted) >= 0.99 * 120 * 160


@pytest.mark.parametrize(("height", "width", "resolution"), [(15, 640, 1024), (640, 15, 1024), (20, 4000, 1024)])
def test_an_image_that_is_too_small_is_refused(height: int, width: int, resolution: int) -> None:
    with pytest.raises(ValueError, match=r"too small: expected at least 16 px"):
        process_size(height, width, resolution, 16)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (1200, [1, 0.94568, 0.88555, 0.81863, 0.74369, 0.65921, 0.56324, 0.45326, 0.32596, 0.17691, 0]),
        (4096, [1, 0.96601, 0.92665, 0.88051, 0.8257, 0.75951, 0.67799, 0.5751, 0.4412, 0.25976, 0]),
    ],
)
def test_sigmas_shift_with_the_number_of_tokens(small: TrainableLotus2, tokens: int, expected: list[float]) -> None:
    assert small.scheduler.sigmas(10, tokens) == pytest.approx(expected, abs=6e-6)


def test_one_step_goes_all_the_way(small: TrainableLotus2) -> None:
    assert small.scheduler.sigmas(1, 1200) == [1.0, 0.0]
    latent = torch.randn(1, 4, 6, 10)
    sharp = small.sharpen(latent, "depth", 1).result()
    assert torch.allclose(sharp, latent - small.velocity(latent, "depth", 1.0))


def test_the_sharpener_says_until_the_last_step_that_steps_remain(small: TrainableLotus2) -> None:
    latent = torch.randn(1, 4, 6, 10)
    steps = small.sharpen(latent, "depth", 4)
    assert torch.equal(steps.latent, latent) and not steps.done
    assert [steps.step() for _ in range(4)] == [True, True, True, False]
    sharp = steps.latent
    assert steps.done and not steps.step()
    assert torch.equal(steps.result(), sharp) and sharp.shape == latent.shape
    assert torch.equal(small.sharpen(latent, "depth", 4).result(), sharp)


def test_jobs_may_be_interleaved_with_each_other_and_with_the_core(small: TrainableLotus2) -> None:
    latents = {"depth": torch.randn(1, 4, 6, 10), "normals": torch.randn(1, 4, 10, 6)}
    alone = {task: small.sharpen(latent, task, 3).result() for task, latent in latents.items()}
    core = small.core(latents["depth"], "depth")
    jobs = {task: small.sharpen(latent, task, 3) for task, latent in latents.items()}
    for _ in range(3):
        for job in jobs.values():
            job.step()
        assert torch.equal(small.core(latents["depth"], "depth"), core)
    assert all(torch.equal(job.latent, alone[task]) for task, job in jobs.items())


def test_the_vae_decides_the_multiple(small: TrainableLotus2, image: torch.Tensor) -> None:
    assert (small.vae_factor, small.multiple) == (4, 8)
    latent = small.encode(image)
    assert latent.shape == (1, 4, 6, 10)
    assert small.decode(latent).shape == image.shape


def test_mode_is_deterministic_and_a_seeded_sample_is_mean_plus_noise(
    small: TrainableLotus2, image: torch.Tensor
) -> None:
    mode = small.encode(image)
    assert torch.equal(mode, small.encode(image))
    posterior = small.vae.encode(image)
    noise = torch.randn(mode.shape, generator=torch.Generator().manual_seed(7))
    sample = (posterior.mean + posterior.std * noise - 0.1) * 0.5
    assert torch.allclose(small.encode(image, torch.Generator().manual_seed(7)), sample)
    assert torch.allclose(mode, (posterior.mean - 0.1) * 0.5)
    assert not torch.allclose(mode, sample)


def test_decode_clamps_after_the_upcast(small: TrainableLotus2) -> None:
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    decoded = small.to(torch.bfloat16).decode(latent.bfloat16())
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert not torch.equal(decoded, decoded.bfloat16().float())


def test_each_stage_and_task_has_weights_of_its_own(small: TrainableLotus2) -> None:
    latent = torch.randn(1, 4, 6, 10)
    results = [small.core(latent, task) for task in small.tasks] + [small.velocity(latent, t, 0.5) for t in small.tasks]
    assert all(not torch.allclose(a, b) for i, a in enumerate(results) for b in results[:i])


def test_without_an_adapter_the_base_is_the_core_predictor(bare: TrainableLotus2) -> None:
    latent = torch.randn(1, 4, 6, 10)
    base = bare.core(latent, "depth")
    bare.add_adapter(CORE, "normals", rank=4)
    assert torch.equal(bare.core(latent, "normals"), base)  # a new adapter changes nothing
    for name, parameter in bare.named_parameters():
        if "lora_B" in name:
            parameter.data += 1
    assert not torch.allclose(bare.core(latent, "normals"), base)
    assert torch.equal(bare.core(latent, "depth"), base)


def test_the_default_targets_are_those_of_the_released_adapters(bare: TrainableLotus2) -> None:
    bare.add_adapter(CORE, "depth", rank=1)
    adapted = {name.split(".lora_A")[0] for name, _ in bare.named_parameters() if "lora_A" in name}
    assert len(adapted) == 2 * 12 + 2 * 3  # of the released model's 19 and 38 blocks: 342
    assert not any(part in name for name in adapted for part in ("proj_mlp", "norm", "embedder"))
    assert bare.adapters["core_predictor_depth"].target_modules == LORA_TARGETS


def test_both_stages_are_trainable(bare: TrainableLotus2, image: torch.Tensor) -> None:
    latent = bare.encode(image)
    bare.core(latent, "depth").square().mean().backward()
    embedder = bare.transformer.context_embedder.weight.grad
    assert embedder is not None and embedder.abs().sum() > 0
    bare.add_adapter(SHARPENER, "depth", rank=2)
    bare.velocity(latent.detach(), "depth", torch.tensor([0.3])).square().mean().backward()
    trained = [name for name, p in bare.named_parameters() if "lora_B" in name and p.grad is not None]
    assert len(trained) == 2 * 12 + 2 * 3


def test_a_batch_may_have_a_sigma_each(small: TrainableLotus2) -> None:
    latents = torch.randn(2, 4, 6, 10)
    together = small.velocity(latents, "depth", torch.tensor([0.2, 0.9]))
    apart = [small.velocity(latents[i : i + 1], "depth", sigma) for i, sigma in enumerate((0.2, 0.9))]
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


@torch.no_grad()
def test_remembered_conditioning_does_not_outlive_the_weights(small: TrainableLotus2) -> None:
    latent = torch.randn(1, 4, 6, 10)
    before = small.core(latent, "depth")
    small.train()
    small.transformer.context_embedder.weight += 1
    small.conditioner.pooled += 1
    trained = small.core(latent, "depth")
    assert not torch.allclose(before, trained)
    assert torch.equal(trained, small.eval().core(latent, "depth"))


def test_the_continuity_module_starts_as_identity(bare: TrainableLotus2) -> None:
    latent = torch.randn(1, 4, 6, 10)
    assert torch.equal(bare.continuity["depth"](latent), latent)


def test_what_a_model_cannot_do_is_said(bare: TrainableLotus2) -> None:
    latent = torch.randn(1, 4, 6, 10)
    with pytest.raises(ValueError, match=r"expected a task of unnamed \(depth, normals\), got 'flow'"):
        bare.core(latent, "flow")
    with pytest.raises(ValueError, match="no detail_sharpener for depth"):
        bare.sharpen(latent, "depth", 4)
    with pytest.raises(ValueError, match="at least one sharpener step, got 0"):
        bare.scheduler.sigmas(0, 100)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(3, 24, 40\)"):
        bare.encode(torch.zeros(3, 24, 40))
    with pytest.raises(ValueError, match=r"multiples of 8, got \(24, 44\)"):
        bare.encode(torch.zeros(1, 3, 24, 44))
