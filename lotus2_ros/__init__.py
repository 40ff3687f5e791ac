"""Dense depth, normals and point clouds from one camera with Lotus-2, for ROS 2."""

from pkgutil import extend_path

# The generated messages (lotus2_ros.msg) live in the installed package: when Python starts in the source tree, this
# lets the tree and the installed messages be one package.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
