"""Agreement of Lotus-D and Lotus-G with what the public reference computed, stage by stage, on tiny random models."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lotus2_ros.config import Config
from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.model.lotus import bundle
from lotus2_ros.model.lotus.lotus import ANNOTATION, TIMESTEP
from lotus2_ros.model.lotus.released import open_pipelines

TOLERANCE = 1e-5


MORE = pytest.mark.larger_set


@pytest.fixture(
    params=[
        "lotus-d_120x160_res96",
        "lotus-g_120x160_res96",
        pytest.param("lotus-d_64x96_res0", marks=MORE),
        pytest.param("lotus-g_64x96_res0", marks=MORE),
    ]
)
def golden(request, shared):
    """The recorded tensors of one image, and the model."""
    family, _, resolution = request.param.split("_")
    folder = shared / "golden" / f"tiny-{family}"
    model, state = open_pipelines({"depth": folder}, predicts="disparity", seed=3, samples=1)
    bundle.ready(model, state, torch.device("cpu"), torch.float32)
    tensors = load_file(shared / f"golden/reference-lotus1/{request.param}.safetensors")
    longer = max(tensors["image_u8"].shape[:2])
    return model, tensors, int(resolution.removeprefix("res")) or longer


def error(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


def test_every_stage_is_that_of_the_reference(golden):
    model, tensors, resolution = golden
    assert model.family == ("lotus-g" if tensors["unet_in"].shape[1] == 8 else "lotus-d")
    image = tensors["image_u8"].permute(2, 0, 1)[None].float()
    size = model.process_size(*image.shape[2:], resolution)
    assert size == tuple(tensors["vae_in"].shape[2:])
    pixels = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True) / 127.5 - 1
    assert error(pixels, tensors["vae_in"]) < TOLERANCE
    posterior = model.vae.encode(tensors["vae_in"])
    assert error(posterior.mean, tensors["post_mean"]) < TOLERANCE
    assert error(posterior.std, tensors["post_std"]) < TOLERANCE
    assert error(model.prompt_embeds, tensors["prompt_embeds"]) < TOLERANCE
    assert error(torch.tensor(ANNOTATION)[None], tensors["class_labels"]) < TOLERANCE and TIMESTEP == 999


def test_a_frame_from_the_same_posterior_sample_and_noise_is_that_of_the_reference(golden):
    """The reference draws the sample from a generator seeded with 7, and the noise from another."""
    model, tensors, resolution = golden
    latent = model.encode(tensors["vae_in"], torch.Generator().manual_seed(7))
    assert error(latent, tensors["unet_in"][:, :4]) < TOLERANCE
    if model.generative:
        assert error(model.noise(latent), tensors["unet_in"][:, 4:]) < TOLERANCE
    annotation = model.predict(latent, ("depth",))["depth"]
    assert error(annotation, tensors["unet_out"]) < TOLERANCE
    config = Config().updated({"model.process_resolution": resolution, "model.posterior": "sample", "model.seed": 7})
    geometry = Estimator(model, config).predict(tensors["image_u8"])
    assert error(geometry.disparity, tensors["pred"].mean(-1)) < TOLERANCE
