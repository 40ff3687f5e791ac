"""Lotus-2: a FLUX transformer with LoRA adapters (arXiv 2512.01030)."""
