"""Mutated messages against the conversions that every message passes through: ``make fuzz``.

    python -m benchmarks.fuzz --seconds 120

Each case is a good Image, CompressedImage, CameraInfo or PointCloud2 with a few fields changed (mutated_messages.py). A
conversion must return a tensor or camera that can be used, or raise MessageError.
Prints the counts. Exit code 1 on any other exception, on a conversion that took over a second, or if memory grows.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter

import cv2
import torch

from benchmarks.mutated_messages import cases, is_usable
from lotus2_ros.ros.messages import MessageError

MAX_SECONDS = 1.0  # of one conversion
MAX_GROWTH = 200  # MB of memory after the first tenth of the run


def memory_mb() -> float:
    """The most that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="how long (120)")
    parser.add_argument("--seed", type=int, default=None, help="of the cases; the time by default, and printed")
    args = parser.parse_args()
    seed = time.time_ns() % 2**32 if args.seed is None else args.seed
    print(f"seed {seed}, {args.seconds:g} s", flush=True)
    # libpng and libjpeg write a line to stderr for every picture that they do not like.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    faulthandler.enable(sys.stdout)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    counts: Counter[str] = Counter()
    failures, slowest, baseline = [], 0.0, 0.0
    begun = time.monotonic()
    for number, case in enumerate(cases(random.Random(seed))):
        now = time.monotonic()
        if now - begun > args.seconds or len(failures) >= 10:
            break
        if not baseline and now - begun > args.seconds / 10:
            baseline = memory_mb()
        start = time.process_time()
        try:
            result = case.convert()
            assert is_usable(result), f"expected a usable result, got {result!r}"
            counts[f"{case.kind}: converted"] += 1
        except MessageError as error:
            counts[f"{case.kind}: {error.reason}"] += 1
        except Exception:  # this is what the benchmark looks for
            failures.append(f"case {number}, {case.kind}:\n{traceback.format_exc()}")
        # Processor time: another process may take the core away in between.
        seconds = time.process_time() - start
        slowest = max(slowest, seconds)
        if seconds > MAX_SECONDS:
            failures.append(f"case {number}, {case.kind}: took {seconds:.2f} s")
    growth = memory_mb() - baseline
    if baseline and growth > MAX_GROWTH:
        failures.append(f"memory grew by {growth:.0f} MB")
    for name, count in sorted(counts.items()):
        print(f"{count:>9}  {name}")
    total = sum(counts.values())
    print(f"{total} conversions, {len(failures)} failures, slowest {1e3 * slowest:.0f} ms, memory +{growth:.0f} MB")
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
