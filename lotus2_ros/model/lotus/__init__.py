"""Lotus-D and Lotus-G (arXiv 2409.18124)."""
