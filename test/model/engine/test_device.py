import subprocess
import sys
import threading

import pytest
import torch

from lotus2_ros.config import Config
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.inference.loading import load_estimator
from lotus2_ros.model.engine.device import ALL_THREADS, Download, Stopwatch, copy_stream, finish, upload, use_threads

# In a process of its own, as it is for all of a process: page faults of each round after the first few.
FAULTS = """
import resource, threading, torch
from lotus2_ros.model.engine.device import keep_freed_memory

def rounds(count):
    for _ in range(count):
        first = torch.ones(300_000)
        second = first + 1
        del first, second

def measure():
    rounds(50)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    rounds(100)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 100)

torch.set_num_threads(1)
keep_freed_memory()
measure()
thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")),
]


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    return torch.device(request.param)


def test_there_and_back(device):
    image = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)
    there = upload(image, device)
    assert there.device.type == device.type
    contents = {"bytes": there, "floats": there.float() / 2, "other": "as it is"}
    back = Download(contents, copy_stream(device)).wait()
    assert list(back) == list(contents) and back["other"] == "as it is"
    assert torch.equal(back["bytes"], image) and torch.equal(back["floats"], image.float() / 2)


def test_a_download_is_not_changed_by_what_the_model_does_next(device):
    """Its memory is not given to the tensors of the next frame while the copy may still be under way."""
    stream = copy_stream(device)
    for value in range(20):
        download = Download({"frame": torch.full((1024, 1024), float(value), device=device)}, stream)
        torch.full((1024, 1024), -1.0, device=device)
        assert download.wait()["frame"].unique().tolist() == [value]


def test_a_stage_is_the_sum_of_its_parts(device):
    stopwatch = Stopwatch(device)
    for stage in ("encode", "sharpen", "sharpen", "decode"):
        with stopwatch(stage):
            torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
    finish(device)
    seconds = stopwatch.read()
    assert list(seconds) == ["encode", "sharpen", "decode"] and all(value > 0 for value in seconds.values())


def test_threads_are_those_of_the_calling_thread() -> None:
    seen: list[int] = []

    def other() -> None:
        use_threads(2)
        seen.append(torch.get_num_threads())

    try:
        use_threads(1)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert seen == [2]
        assert torch.get_num_threads() == 1
    finally:
        use_threads(0)
    assert torch.get_num_threads() == ALL_THREADS


def test_loading_leaves_the_callers_threads_alone() -> None:
    try:
        use_threads(1)
        load_estimator(Config())
        assert torch.get_num_threads() == 1
        load_estimator(Config().updated({"model.threads": 2}), live=True)
        assert torch.get_num_threads() == 1
        load_estimator(Config().updated({"model.threads": 2}))
        assert torch.get_num_threads() == 2
    finally:
        use_threads(0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_used_again_without_the_system_in_any_thread():
    run = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=allowed(120), check=True
    )
    main, another = map(float, run.stdout.split())
    assert main < 10 and another < 10  # otherwise some 550 in the main one
