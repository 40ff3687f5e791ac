"""What a frame takes beside programs that keep cores busy: python -m benchmarks.beside [--busy 0 1] [--seconds 6]

The bundled model on this CPU, an image of 640 x 480 to depth and normals thirty milliseconds after the last, with as
many threads as torch takes, by how long OpenMP's threads spin before they sleep (GOMP_SPINCOUNT), and with one
thread. Each in a process of its own; the busy ones in sessions of their own, as other programs are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from benchmarks.timing import WARM_UP, machine, markdown, percentile
from lotus2_ros import SPINS
from lotus2_ros.inference.loading import load
from lotus2_ros.model.engine.device import use_threads

PAUSE = 0.03  # seconds
CASES: dict[str, tuple[dict[str, str], int]] = {
    "OpenMP's own": ({"GOMP_SPINCOUNT": "300000"}, 0),  # libgomp's, where nothing is set
    "sleep at once": ({"GOMP_SPINCOUNT": "0"}, 0),
    f"{SPINS} spins, ours": ({"GOMP_SPINCOUNT": SPINS}, 0),
    "10000 spins": ({"GOMP_SPINCOUNT": "10000"}, 0),
    "one thread": ({}, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="numbers of busy programs (0 1)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each case (6)")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)  # of a case in its own process
    args = parser.parse_args()
    if args.threads is not None:
        times = sorted(_frames(args.threads, args.seconds))
        print(*(f"{1e3 * percentile(times, share):.1f}" for share in (0.5, 0.95)))
        return
    rows = []
    for name, (environment, threads) in CASES.items():
        row: list[object] = [name]
        for count in args.busy:
            with _busy(count):
                row += _case(environment, threads, args.seconds)
        rows.append(row)
    header = ["threads wait by", *(f"{n} busy, {what}" for n in args.busy for what in ("median ms", "95 %"))]
    print(f"{machine(torch.device('cpu'))}, {os.cpu_count()} cores\n\n{markdown(header, rows)}")


def _frames(threads: int, seconds: float) -> Iterator[float]:
    """Seconds that each frame takes."""
    use_threads(threads)
    estimator = load()
    image = torch.randint(0, 256, (480, 640, 3), dtype=torch.uint8)
    for _ in range(WARM_UP):
        estimator.predict(image)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        estimator.predict(image)
        yield time.perf_counter() - started
        time.sleep(PAUSE)


def _case(environment: dict[str, str], threads: int, seconds: float) -> list[float]:
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-m", "benchmarks.beside", "--threads", str(threads), "--seconds", str(seconds)]
    done = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True, timeout=600)
    return [float(word) for word in done.stdout.split()]


@contextmanager
def _busy(count: int) -> Iterator[None]:
    command: Sequence[str] = (sys.executable, "-c", "while True: pass")
    programs = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


if __name__ == "__main__":
    main()
