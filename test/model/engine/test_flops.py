from __future__ import annotations

import pytest
import torch

from benchmarks.lotus_models import FAMILIES, TRUE, build_lotus
from benchmarks.models import FLUX, TINY, build_fused
from lotus2_ros.model.engine.flops import count_frame, count_step, weight_bytes
from lotus2_ros.model.lotus2.flux import pack
from lotus2_ros.model.lotus2.fused import FusedLotus2
from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.manifest import ModelSettings

# The reference implementation's, 1e12 operations: (height, width) -> transformer, encoder, decoder.
REFERENCE = {
    (1024, 1024): (74.39, 4.88, 10.47),
    (768, 768): (41.93, 2.61, 5.76),
    (480, 640): (24.18, 1.32, 2.95),
    (384, 512): (17.69, 0.83, 1.88),
    (288, 384): (12.83, 0.46, 1.05),
}


@pytest.fixture(scope="module")
def flux() -> FusedLotus2:
    with torch.device("meta"):
        return build_fused(FLUX, "bfloat16")


@pytest.mark.parametrize("size", REFERENCE)
def test_true_size_does_the_reference_s_work(flux, size):
    flops = count_frame(flux, *size, tasks=("depth",))
    for counted, reference in zip((flops.core, flops.encode, flops.decode), REFERENCE[size], strict=True):
        assert counted / 1e12 == pytest.approx(reference, rel=0.01)


def test_reference_s_transformer_by_diffusers():
    """The count agrees with diffusers' own network, so that both are compared with the same floor."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        transformer = TrainableLotus2.from_config(
            FLUX.configs,
            ModelSettings(tasks=("depth",), process_resolution=1024),
            prompt_tokens=FLUX.prompt_tokens,
        ).transformer
        latent = torch.empty(1, 16, 60, 80)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            transformer(
                hidden_states=pack(latent),
                encoder_hidden_states=torch.empty(1, FLUX.prompt_tokens, 4096),
                pooled_projections=torch.empty(1, 768),
                timestep=torch.empty(1),
                guidance=torch.empty(1),
                img_ids=torch.empty(1200, 3),
                txt_ids=torch.empty(FLUX.prompt_tokens, 3),
            )
    assert counter.get_total_flops() / 1e12 == pytest.approx(REFERENCE[480, 640][0], rel=0.01)


def test_two_tasks_are_twice_the_work_plus_the_change():
    with torch.device("meta"):
        model = build_fused(TINY, "bfloat16")
    one, two = count_frame(model, 64, 64, ("depth",)), count_frame(model, 64, 64)
    change = count_frame(model, 64, 64, ("normals",)).core - one.core
    assert change > 0
    assert (two.encode, two.decode) == (one.encode, 2 * one.decode)
    assert two.core == pytest.approx(2 * one.core + change, rel=0.01)


def test_a_step_costs_more_than_a_core_pass_only_by_its_change():
    with torch.device("meta"):
        model = build_fused(TINY, "bfloat16")
    step, core = count_step(model, 64, 64, "depth"), count_frame(model, 64, 64, ("depth",)).core
    rank = sum(model.plan.ranks("detail_sharpener_depth", ["transformer_blocks.0.attn.to_q"]))
    assert rank == 2 * TINY.ranks["depth"]
    assert core < step < 2 * core


def test_counts_are_the_same_in_all_precisions():
    counts = set()
    for precision in ("float32", "bfloat16", "float8", "int8", "nf4"):
        with torch.device("meta"):
            counts.add(count_frame(build_fused(TINY, precision), 64, 64))
    assert len(counts) == 1


def test_weights_of_the_true_size(flux):
    """What the transformer alone, core predictor of one task, takes: 8.6 G parameters."""
    gigabytes = {
        precision: weight_bytes(flux, precision=precision, tasks=("depth",), sharpeners=False) / 1e9
        for precision in ("bfloat16", "float8", "nf4")
    }
    # Beside them the VAE's .17 GB and the modulation's .14 GB.
    assert gigabytes["bfloat16"] == pytest.approx(17.2 + 0.3, rel=0.01)
    assert gigabytes["float8"] == pytest.approx(8.6 + 0.3, rel=0.01)
    assert gigabytes["nf4"] <= 4.9


def test_weight_bytes_are_those_of_the_model_in_memory():
    from benchmarks.models import make_fused

    for precision, dtype in (("float32", torch.float32), ("int8", torch.bfloat16), ("nf4", torch.bfloat16)):
        model = make_fused(TINY, precision, torch.device("cpu"), dtype)
        held = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        assert weight_bytes(model) == held
        assert weight_bytes(model, tasks=("depth",)) < held


# (576, 768) is the size at which a released model processes 640 x 480.
LOTUS1_REFERENCE = {(768, 768): (2.14, 2.61, 5.75), (576, 768): (1.49, 1.92, 4.28)}


@pytest.mark.parametrize("size", LOTUS1_REFERENCE)
@pytest.mark.parametrize("family", FAMILIES)
def test_lotus1_of_true_size_does_its_reference_s_work(family, size):
    with torch.device("meta"):
        model = build_lotus(family, TRUE, ("depth",))
    assert sum(tensor.numel() for tensor in model.unets.parameters()) == pytest.approx(0.867e9, rel=0.001)
    model.settings = model.settings.changed(process_resolution=768, upscale=True)
    assert model.process_size(480, 640, 768) == (576, 768)
    flops = count_frame(model, *size)
    for counted, reference in zip((flops.core, flops.encode, flops.decode), LOTUS1_REFERENCE[size], strict=True):
        assert counted / 1e12 == pytest.approx(reference, rel=0.01)
