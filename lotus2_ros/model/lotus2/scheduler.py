"""The noise levels of the detail sharpener's steps."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field

from lotus2_ros.model.components import LARGEST, ComponentConfig


class Scheduler(ComponentConfig):
    """Keys and noise levels of diffusers' `FlowMatchEulerDiscreteScheduler`, as far as FLUX uses them."""

    num_train_timesteps: Annotated[int, Field(ge=1, le=LARGEST)] = 1000
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: Annotated[int, Field(ge=0, le=LARGEST)] = 256
    max_image_seq_len: Annotated[int, Field(ge=0, le=LARGEST)] = 4096
    invert_sigmas: Literal[False] = False
    shift_terminal: None = None
    use_karras_sigmas: Literal[False] = False
    use_exponential_sigmas: Literal[False] = False
    use_beta_sigmas: Literal[False] = False
    time_shift_type: Literal["exponential"] = "exponential"
    stochastic_sampling: Literal[False] = False

    def sigmas(self, steps: int, tokens: int) -> list[float]:
        """steps + 1 noise levels from 1 to 0, shifted for a latent of that many tokens."""
        if steps < 1:
            raise ValueError(f"expected at least one sharpener step, got {steps}")
        even = torch.tensor([(steps - i) / steps for i in range(steps)])
        if self.use_dynamic_shifting:
            slope = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len)
            shift = torch.tensor(math.exp(self.base_shift + slope * (tokens - self.base_image_seq_len)))
            shifted = shift / (shift + (1 / even - 1))
        else:
            shifted = self.shift * even / (1 + (self.shift - 1) * even)
        return [*shifted.tolist(), 0.0]
