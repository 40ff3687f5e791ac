"""Dense depth, normals and point clouds from one camera with Lotus-2, for ROS 2."""

import os
from pkgutil import extend_path

# The generated messages (lotus2_ros.msg) live in the installed package: when Python starts in the source tree, this
# lets the tree and the installed messages be one package.
__path__ = extend_path(__path__, __name__)

# OpenMP's threads wait for one another by spinning, by default for milliseconds: beside another program that keeps one
# of the cores busy they mostly spin, and a frame takes forty times as long. So they sleep after some microseconds. Read
# when torch loads OpenMP, so set before anything here imports torch.
SPINS = "1000"
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)

__version__ = "0.1.0"
