"""Values that a module computes from its weights once and keeps."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import nn

Value = TypeVar("Value")

# Far more than the timesteps and image sizes of one session. A bound for programs that run images of all sizes.
CACHE_LIMIT = 64


class CachingModule(nn.Module):
    """A module with a cache, which is emptied when the module is moved, converted or switched to training."""

    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of `compute()`, computed the first time that the key is asked for."""
        if key not in self._cache:
            if len(self._cache) >= CACHE_LIMIT:
                self._cache.clear()
            self._cache[key] = compute()
        value: Value = self._cache[key]
        return value

    def train(self, mode: bool = True) -> Any:
        self._cache.clear()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._cache.clear()
        return super()._apply(*args, **kwargs)
