"""What is trained, one after the other: the VAE, the core predictor, the detail sharpener."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from lotus2_ros.model.adapted import LORA_TARGETS, AdaptedLotus2
from lotus2_ros.model.lotus2 import CORE, SHARPENER
from lotus2_ros.training import data, loop
from lotus2_ros.training.config import NetworkConfig, TrainingConfig

TASKS = ("depth", "normals")
# A small base takes its second task best when the adapter reaches every linear of the blocks and the output.
CORE_TARGETS = LORA_TARGETS + r"|single_transformer_blocks\.\d+\.(proj_mlp|proj_out)|proj_out"

Views = Mapping[data.Bucket, Mapping[str, Tensor]]


def build(network: NetworkConfig) -> AdaptedLotus2:
    """The untrained model: the base is the depth core, the normals core and the sharpeners are adapters on it."""
    depth = len(network.vae_widths)
    model = AdaptedLotus2.from_config(
        {
            "block_out_channels": network.vae_widths,
            "down_block_types": ("DownEncoderBlock2D",) * depth,
            "up_block_types": ("UpDecoderBlock2D",) * depth,
            "latent_channels": network.latent_channels,
            "norm_num_groups": network.vae_groups,
            "layers_per_block": 1,
            "mid_block_add_attention": False,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "force_upcast": False,
            "scaling_factor": 1.0,
            "shift_factor": 0.0,
        },
        {
            "patch_size": 1,
            "in_channels": 4 * network.latent_channels,
            "num_layers": network.double_blocks,
            "num_single_layers": network.single_blocks,
            "attention_head_dim": network.head_size,
            "num_attention_heads": network.heads,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "guidance_embeds": True,
            "axes_dims_rope": network.rotary_axes,
        },
        {"num_train_timesteps": 10, "shift": 1.0, "use_dynamic_shifting": False},
        prompt_tokens=network.prompt_tokens,
        tasks=TASKS,
        process_resolution=network.process_resolution,
        antialias=True,
        sharpener_steps=network.sharpener_steps,
    )
    model.add_adapter(CORE, "normals", network.core_rank, targets=CORE_TARGETS)
    for task in TASKS:
        model.add_adapter(SHARPENER, task, network.sharpener_rank)
    return model


def parameters_of(model: AdaptedLotus2, stage: str) -> dict[str, Tensor]:
    """What a stage trains. The core: base, adapters and continuity modules together; the sharpener: its adapters."""

    def belongs(name: str) -> bool:
        if stage == "vae":
            return name.startswith("vae.")
        return not name.startswith("vae.") and (SHARPENER in name) == (stage == "sharpener")

    return {name: parameter for name, parameter in model.named_parameters() if belongs(name)}


def train_vae(model: AdaptedLotus2, views: Views, config: TrainingConfig, folder: Path) -> None:
    """Images, disparities and normals through one autoencoder, on crops: L1 + .5 gradient + .5 MSE."""
    vae = model.vae.to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        crops = [_crops(views, field, config, generator) for field in data.FIELDS]
        crops[0] = data.jitter(crops[0], generator)
        truth = torch.cat(crops).contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(truth).latent_dist
        noise = config.vae_noise * torch.randn(posterior.mean.shape, generator=generator)
        error = vae.decode(posterior.mean + noise).sample - truth
        gradient = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        # A posterior sample is then what the decoder was trained on, and the latents stay of order one.
        spread = (posterior.std.log() - torch.tensor(config.vae_noise).log()).square().mean()
        size = posterior.mean.square().mean()
        return error.abs().mean() + 0.5 * gradient + 0.5 * error.square().mean() + 1e-3 * size + 1e-2 * spread

    loop.train("vae", parameters_of(model, "vae"), loss, config.vae, folder, config.seed, config.checkpoint_every)
    _measure_latents(vae, views, config)


def train_core(model: AdaptedLotus2, views: Views, config: TrainingConfig, folder: Path) -> None:
    """Clean-data prediction in one step at t = 1, then local continuity: MSE on latents (arXiv 2512.01030, eq. 13-15).

    First on small images, where a step costs a quarter and the layout of scenes is learnt, then on whole ones.
    """
    parameters = parameters_of(model, "core")

    def loss_at(size: float, batch: int) -> loop.Loss:
        def loss(step: int, generator: torch.Generator) -> Tensor:
            task = TASKS[step % 2]
            image, truth = _batch(model, views, task, batch, size, generator)
            model.select(CORE, task)
            # PEFT freezes what is not the active adapter; here base and adapter learn together.
            for name, parameter in parameters.items():
                parameter.requires_grad_("lora_" not in name or task in name)
            return F.mse_loss(model.core(image, task), truth)

        return loss

    for name, stage, size in (("core_small", config.core_small, 0.5), ("core", config.core, 1.0)):
        loop.train(name, parameters, loss_at(size, stage.batch), stage, folder, config.seed, config.checkpoint_every)


def train_sharpener(model: AdaptedLotus2, views: Views, config: TrainingConfig, folder: Path) -> None:
    """Rectified flow from the core's own predictions (sigma = 1) to the truth (0): MSE on the velocity (eq. 16-17)."""
    parameters = parameters_of(model, "sharpener")
    model.requires_grad_(False)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        task = TASKS[step % 2]
        image, truth = _batch(model, views, task, config.sharpener.batch, 1.0, generator)
        with torch.no_grad():
            coarse = model.core(image, task)
        sigma = torch.rand(len(truth), generator=generator)
        between = torch.lerp(truth, coarse, sigma[:, None, None, None])
        model.select(SHARPENER, task)
        for name, parameter in parameters.items():
            parameter.requires_grad_(task in name)
        return F.mse_loss(model.velocity(between, task, sigma), coarse - truth)

    loop.train("sharpener", parameters, loss, config.sharpener, folder, config.seed, config.checkpoint_every)


@torch.no_grad()
def _batch(
    model: AdaptedLotus2, views: Views, task: str, batch: int, size: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Latents of images and of their annotation, of one bucket at `size` times its size, half of them mirrored."""
    bucket = _choose_bucket({bucket: len(fields["image"]) for bucket, fields in views.items()}, generator)
    chosen = torch.randint(len(views[bucket]["image"]), (batch,), generator=generator)
    mirrored = bool(torch.rand(1, generator=generator) < 0.5)
    sides = tuple(int(side * size) // model.multiple * model.multiple for side in bucket)
    pair = []
    for field in ("image", task):
        values = F.interpolate(data.dequantize(views[bucket][field][chosen], field), sides, mode="area")
        pair.append(data.mirror(values, field) if mirrored else values)
    image, truth = model.encode(torch.cat((data.jitter(pair[0], generator), pair[1]))).chunk(2)
    return image, truth


def _crops(views: Views, field: str, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """A third of the VAE's batch."""
    side = config.vae_crop
    usable = {bucket: len(fields[field]) for bucket, fields in views.items() if min(bucket) >= side}
    bucket = _choose_bucket(usable, generator)
    values = views[bucket][field]
    chosen = torch.randint(len(values), (config.vae.batch // 3,), generator=generator)
    y, x = (int(torch.randint(length - side + 1, (1,), generator=generator)) for length in bucket)
    return data.dequantize(values[chosen, :, y : y + side, x : x + side], field)


def _choose_bucket(counts: Mapping[data.Bucket, int], generator: torch.Generator) -> data.Bucket:
    weights = torch.tensor([float(count) for count in counts.values()])
    return list(counts)[int(torch.multinomial(weights, 1, generator=generator))]


def _measure_latents(vae: AutoencoderKL, views: Views, config: TrainingConfig) -> None:
    """Shift and scale that bring the latents to mean 0 and standard deviation 1."""
    generator = torch.Generator().manual_seed(config.seed)
    with torch.inference_mode():
        sample = torch.cat([_crops(views, field, config, generator) for field in data.FIELDS for _ in range(30)])
        latent = vae.encode(sample).latent_dist.mean
    vae.register_to_config(shift_factor=float(latent.mean()), scaling_factor=1 / float(latent.std()))
