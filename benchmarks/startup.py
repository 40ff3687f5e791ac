"""CPU seconds and memory of the start of a program with the bundled model, by stage, in a process of its own.

    python -m benchmarks.startup [--engine auto] [--runs 3]

The stages are those of the node until it is configured, without the node itself, which takes 0.1 s more: imports,
loading, and a warm-up of 640x480 with the sharpener. The cheapest of a few runs: the first one compiles for OpenVINO,
later ones find that on disk. CPU time is that of all threads, which means something on a busy machine too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import torch

from benchmarks.timing import machine, markdown

STAGES = """
import os, sys
from pathlib import Path
from lotus2_ros.ros.node import frozen_objects

def cpu():
    times = os.times()
    return times.user + times.system

def mark(stage):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(stage, cpu(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6, sep="\\t", flush=True)

import lotus2_ros
mark("Python")
with frozen_objects():
    import torch
    mark("import torch")
    import rclpy
    mark("import rclpy")
    import lotus2_ros.inference.loading
    mark("import lotus2_ros.inference")
    import lotus2_ros.ros.perception
    mark("import the node")
from lotus2_ros.config import Config
from lotus2_ros.model.engine.device import use_threads
use_threads(1)
config = Config().updated({"model.engine": sys.argv[1]})
estimator = lotus2_ros.inference.loading.load_estimator(config, live=True)
mark("load the model")
for name, run in estimator.warm_up(480, 640):
    run()
    mark(f"warm up: {name}")
os._exit(0)
"""


def measure(engine: str) -> list[tuple[str, float, float]]:
    """Stage, its CPU seconds, and the memory in MB after it; of one start."""
    result = subprocess.run([sys.executable, "-c", STAGES, engine], stdout=subprocess.PIPE, text=True, check=True)
    rows, before = [], 0.0
    for line in result.stdout.splitlines():
        stage, seconds, memory = line.split("\t")
        rows.append((stage, float(seconds) - before, float(memory)))
        before = float(seconds)
    return [*rows, ("all", before, rows[-1][2])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="auto", choices=("auto", "torch", "openvino"), help="of the model")
    parser.add_argument("--runs", type=int, default=3, help="starts, of which the cheapest is shown")
    options = parser.parse_args()
    print(machine(torch.device("cpu")))
    best = min((measure(options.engine) for _ in range(options.runs)), key=lambda rows: rows[-1][1])
    header = ("stage", "CPU seconds", "memory after it, MB")
    print(markdown(header, [(name, f"{seconds:.2f}", f"{memory:.0f}") for name, seconds, memory in best]))


if __name__ == "__main__":
    main()
