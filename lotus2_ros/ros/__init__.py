"""The node: the only place that imports rclpy and message packages."""

import os

# OpenMP's threads wait for one another by spinning, by default for milliseconds: beside another program that keeps one
# of the cores busy they mostly spin, and a frame takes ten times as long. So they sleep after some microseconds. Read
# when torch loads OpenMP, so set before anything here imports torch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
