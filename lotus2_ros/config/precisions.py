"""The number formats in which the weights of each model family can be prepared."""

from __future__ import annotations

from typing import Literal, get_args

# Of the linear layers of Lotus-2.
PrecisionName = Literal["float32", "bfloat16", "float8", "int8", "nf4"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)
# Of Lotus-D and Lotus-G.
LOTUS_PRECISIONS = ("float32", "bfloat16", "float16")
