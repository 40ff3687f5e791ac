"""Killed or interrupted, and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from forks import Forks
from safetensors.torch import load_file, save_file

from lotus2_ros.cli import main
from lotus2_ros.model.lotus2.conversion import Lotus2Conversion
from lotus2_ros.model.lotus2.fuse import FusedPart, Fusion
from lotus2_ros.model.lotus2.released import open_released
from lotus2_ros.prepare import checksums
from lotus2_ros.prepare.work import Work

pytestmark = pytest.mark.slow

CORE = "lotus-2_core_predictor_depth.safetensors"
Arguments = Callable[..., list[str]]
Prepared = Callable[[str], Path]
Kill = Callable[[Path, Path, str, int], None]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


KILLED = """
import os, signal, sys
from pathlib import Path
from lotus2_ros.cli import main

left, replace = int(sys.argv[1]), Path.replace

def replace_or_die(path, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = replace_or_die
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def kill(arguments: Arguments, forks: Forks) -> Kill:
    """A run that is killed when so many files, the last of them not quite, are there."""

    def run(released: Path, output: Path, precision: str, files: int) -> None:
        command = arguments(released, output, "--precision", precision)
        result = forks.run("-c", KILLED, str(files), *command, seconds=120)
        assert result.returncode == -signal.SIGKILL, result.stderr
        assert not output.exists()

    return run


# 1: the prompt, 2, 3: VAE and ends, then a block and the probe's state by turns, 14: the bundle as a whole.
@pytest.mark.parametrize("files", [1, 3, 6, 7, 14])
def test_killed_and_started_again_the_bundle_is_the_same(
    prepared: Prepared,
    golden: Path,
    arguments: Arguments,
    kill: Kill,
    tmp_path: Path,
    files: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "bundle"
    expected = contents(prepared("int8"))
    kill(golden, output, "int8", files)
    if files > 1:
        monkeypatch.setattr(
            "lotus2_ros.model.lotus2.released.embed_empty_prompt", lambda *_, **__: pytest.fail("embedded again")
        )
    assert main(arguments(golden, output, "--precision", "int8")) == 0
    assert contents(output) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_interrupted_and_started_again(
    prepared: Prepared, golden: Path, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, part = tmp_path / "bundle", Fusion.part

    def interrupt(self: Fusion, name: str) -> FusedPart:
        if name == "single_blocks.1":
            raise KeyboardInterrupt
        return part(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Fusion, "part", interrupt)
        assert main(arguments(golden, output, "--precision", "int8")) == 130
    assert not output.exists()
    assert main(arguments(golden, output, "--precision", "int8")) == 0
    assert contents(output) == contents(prepared("int8"))


def test_finished_blocks_are_not_fused_again(
    prepared: Prepared, golden: Path, arguments: Arguments, kill: Kill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, expected = tmp_path / "bundle", contents(prepared("int8"))
    kill(golden, output, "int8", 8)
    fused, part = [], Fusion.part
    monkeypatch.setattr(Fusion, "part", lambda self, name: fused.append(name) or part(self, name))
    assert main(arguments(golden, output, "--precision", "int8")) == 0
    assert fused == ["vae", "ends", "single_blocks.0", "single_blocks.1", "single_blocks.2"]
    assert contents(output) == expected


def test_another_plan_starts_anew(
    prepared: Prepared, golden: Path, arguments: Arguments, kill: Kill, tmp_path: Path
) -> None:
    output, expected = tmp_path / "bundle", contents(prepared("nf4"))
    kill(golden, output, "int8", 8)
    assert main(arguments(golden, output, "--precision", "nf4")) == 0
    assert contents(output) == expected


def test_other_sources_start_anew(released: Path, arguments: Arguments, kill: Kill, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    kill(released, output, "int8", 8)
    changed = {key: tensor * 1.5 for key, tensor in load_file(released / CORE).items()}
    (released / CORE).unlink()
    save_file(changed, released / CORE)
    assert main(arguments(released, output, "--precision", "int8")) == 0
    assert main(arguments(released, tmp_path / "other", "--precision", "int8")) == 0
    assert contents(output) == contents(tmp_path / "other")


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), OSError(5, "Input/output error"), torch.OutOfMemoryError("no")]
)
def test_after_any_error_it_goes_on_and_reads_no_file_again(
    prepared: Prepared,
    golden: Path,
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    output, part, expected = tmp_path / "bundle", Fusion.part, contents(prepared("int8"))

    def fail(self: Fusion, name: str) -> FusedPart:
        if name == "single_blocks.1":
            raise error
        return part(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Fusion, "part", fail)
        assert main(arguments(golden, output, "--precision", "int8")) in (1, 2)
    assert f"what is done is kept in {output}.part: the same command continues there" in caplog.text
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr(checksums, "_digest", lambda *_: pytest.fail("a file was read again"))
    assert main(arguments(golden, output, "--precision", "int8")) == 0
    assert f"continuing the unfinished run in {output}.part" in capsys.readouterr().out
    assert contents(output) == expected


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_text("one")
    known = checksums.Checksums()
    first = known.of({"weights": file})
    known.write(tmp_path)
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    second = checksums.Checksums.read(tmp_path).of({"weights": file})
    assert second != first == {"weights": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"}


def test_where_the_gpu_is_too_small_the_cpu_goes_on(
    prepared: Prepared, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    convert_on, expected = Lotus2Conversion._convert_on, contents(prepared("int8"))

    def on_a_small_gpu(self: Lotus2Conversion, device: torch.device, *rest: object) -> Iterator[str]:
        for number, name in enumerate(convert_on(self, torch.device("cpu"), *rest)):
            if device.type == "cuda" and number == 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield name

    monkeypatch.setattr(Lotus2Conversion, "_convert_on", on_a_small_gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    source = open_released(golden, golden)
    conversion = Lotus2Conversion(source, {}, precision="int8", device=torch.device("cuda"))
    work = Work(tmp_path / "bundle", {})
    assert list(conversion.convert(work)) == conversion.parts
    assert "cuda has too little memory for this, so the rest runs on the CPU" in caplog.text
    del expected["bundle.json"]
    assert contents(work.bundle) == expected
