"""What the bundled model is trained with: THE defaults of `lotus2 train`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataConfig:
    """Scenes rendered once. `buckets`: (height, width) and how often; the widest only shows streets."""

    shards: int = 60
    scenes_per_shard: int = 50
    views_per_scene: int = 3
    buckets: tuple[tuple[int, int], ...] = ((120, 160), (96, 160), (48, 160))
    shares: tuple[float, ...] = (0.65, 0.2, 0.15)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes. With two halvings in the VAE a token of the transformer is 8 x 8 pixels."""

    vae_widths: tuple[int, ...] = (16, 16, 32)
    vae_groups: int = 4  # at least 4 channels each: a group of one channel loses its mean
    latent_channels: int = 16
    heads: int = 4
    head_size: int = 32
    rotary_axes: tuple[int, int, int] = (4, 14, 14)
    double_blocks: int = 2
    single_blocks: int = 4
    prompt_tokens: int = 2
    core_rank: int = 64
    sharpener_rank: int = 32
    process_resolution: int = 160
    sharpener_steps: int = 4


@dataclass(frozen=True)
class StageConfig:
    """One run of the loop: AdamW, linear warm-up, cosine decay."""

    steps: int
    batch: int
    learning_rate: float
    warm_up: int = 100
    weight_decay: float = 0.01


@dataclass(frozen=True)
class TrainingConfig:
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    vae: StageConfig = field(default_factory=lambda: StageConfig(steps=1400, batch=18, learning_rate=2e-3))
    core_small: StageConfig = field(default_factory=lambda: StageConfig(steps=2000, batch=16, learning_rate=1e-3))
    core: StageConfig = field(default_factory=lambda: StageConfig(steps=1300, batch=8, learning_rate=1e-3))
    sharpener: StageConfig = field(default_factory=lambda: StageConfig(steps=700, batch=8, learning_rate=5e-4))
    vae_crop: int = 64
    vae_noise: float = 0.05  # on the latent, so that near latents decode to near images
    seed: int = 0
    checkpoint_every: int = 200
