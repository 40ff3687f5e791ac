"""A released folder is fused with one part at a time beside the result, and too little memory is one line."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from benchmarks.prepare_memory import ENVIRONMENT, write_released
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.model.load import load_model
from lotus2_ros.model.lotus2.fuse import FusedPart, Fusion

# Limits the memory of the process to that of the imports and so many MB.
LOADED = """
import resource, sys
from pathlib import Path
from lotus2_ros.model.load import load_model
import lotus2_ros.model.lotus2.released, lotus2_ros.model.lotus2.fuse

folder, limit = sys.argv[1], int(sys.argv[2])
status = Path("/proc/self/status").read_text().splitlines()
used = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + (limit << 20), resource.RLIM_INFINITY))
try:
    load_model(folder, device="cpu", dtype="bfloat16")
except ValueError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux only")
def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "released"
    write_released(folder, width=128, shard_bytes=4_000_000)
    command = [sys.executable, "-c", LOADED, str(folder), "20"]
    result = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=allowed(200)
    )
    (refused,) = result.stdout.splitlines()
    prepare = f"lotus2 prepare --flux {folder} --lotus2 {folder} --output BUNDLE --precision nf4"
    assert refused.startswith(f"MemoryShortageError: {folder}: too little memory (")
    assert refused.endswith(f"; make a smaller model of it: {prepare}")
    assert "Traceback" not in result.stderr


def test_parts_in_float32_do_not_add_up(
    shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    part = Fusion.part

    def watched(self: Fusion, name: str) -> FusedPart:
        alive.append(sum(weight() is not None for weight in weights))
        fused = part(self, name)
        weights.append(weakref.ref(max(fused.tensors.values(), key=torch.Tensor.numel)))
        return fused

    monkeypatch.setattr(Fusion, "part", watched)
    folder = shared / "golden" / "tiny-flux"
    load_model(folder, device="cpu", dtype="bfloat16")
    assert len(alive) > 5
    assert max(alive) <= 1  # the part before
    assert caplog.messages[0].endswith(f"once: lotus2 prepare --flux {folder} --lotus2 {folder} --output BUNDLE")
