"""The parts of ``python -m benchmarks.alignment``."""
