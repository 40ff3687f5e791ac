"""Lotus-D and Lotus-G (arXiv 2409.18124)."""

FORMAT = 1  # in bundle.json
