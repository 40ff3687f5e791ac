"""Where a model's weights come from, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lotus2_ros.model.lotus2.trainable import TrainableLotus2
from lotus2_ros.model.weights import stored_state


@dataclass(frozen=True)
class Source:
    """A model to be fused.

    `model` says what it consists of; its weights may be on the meta device. `read` gives a weight by its name in
    `stored_state`, on the CPU and in the dtype of its file; `embed_prompt` the prompt's embeddings (1, T, D) and the
    pooled one (1, P).
    """

    model: TrainableLotus2
    read: Callable[[str], Tensor]
    embed_prompt: Callable[[], tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, model: TrainableLotus2) -> Source:
        """A model that is in memory."""
        state = {name: tensor.detach() for name, tensor in stored_state(model).items()}
        return cls(model, state.__getitem__, lambda: (model.conditioner.prompt_embeds, model.conditioner.pooled))
