"""From affine-invariant disparity to depth: scale and shift from measured points, from normals, from the ground."""

from lotus2_ros.geometry.alignment.fit import fit_scale_shift
from lotus2_ros.geometry.alignment.ground import scale_from_ground, up_from_angles
from lotus2_ros.geometry.alignment.shift import shift_from_normals
from lotus2_ros.geometry.alignment.stats import AlignmentError, FitStats

__all__ = [
    "AlignmentError",
    "FitStats",
    "fit_scale_shift",
    "scale_from_ground",
    "shift_from_normals",
    "up_from_angles",
]
