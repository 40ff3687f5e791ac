"""Lotus-2: a FLUX transformer with LoRA adapters (arXiv 2512.01030)."""

NAME = "lotus-2"  # in bundle.json
TRAINABLE_FORMAT, FUSED_FORMAT = 1, 2
