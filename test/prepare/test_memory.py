from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.prepare_memory import measure, write_released


@pytest.mark.slow
def test_a_model_larger_than_the_memory_passes_through(tmp_path: Path) -> None:
    """At most 1.3 x the largest shard + the bundle: neither is in memory as a whole."""
    write_released(tmp_path / "released", width=256, shard_bytes=60_000_000)
    peak, shard, bundle = measure(tmp_path / "released", tmp_path / "bundle", "bfloat16")
    assert 50_000_000 < shard <= 61_000_000
    assert len(list((tmp_path / "released" / "transformer").glob("*.safetensors"))) > 2
    assert peak <= 1.3 * shard + bundle
