"""What `benchmarks.ablation` measures of each row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from lotus2_ros.data.sample import Sample
from lotus2_ros.evaluation.boundary import boundary_score
from lotus2_ros.evaluation.metrics import INDOORS_AND_STREETS, affine_invariant_depth_error, fit_depth, image_row
from lotus2_ros.evaluation.spectrum import high_frequency_ratio, power_spectrum
from lotus2_ros.evaluation.summary import average

FARTHEST = INDOORS_AND_STREETS[1]


def measure(
    answer: Callable[[Sample], Tensor], held_out: Sequence[Sample], frames: Sequence[Sample]
) -> dict[str, float]:
    """AbsRel at the images' own size, as it is and over the image row's; edges and spectrum at that of the `answer`.

    As in `lotus2 evaluate`: of scenes the ratio of the means, of frames the geometric mean of the ratios.
    """
    means = average([_measure_scene(answer(sample), sample) for sample in held_out])
    found = {
        "scenes, AbsRel": means["abs_rel"],
        "scenes, AbsRel / row": means["abs_rel"] / means["row"],
        "scenes, edges F1": means["f1"],
        "scenes, log10 of high-frequency power / truth": means["log_power"],
    }
    if frames:
        errors = [_errors(answer(sample), sample) for sample in frames]
        found["frames, AbsRel"] = sum(error for error, _ in errors) / len(errors)
        found["frames, AbsRel / row"] = math.exp(sum(math.log(error / row) for error, row in errors) / len(errors))
    return found


def _measure_scene(disparity: Tensor, sample: Sample) -> dict[str, float]:
    size = tuple(disparity.shape)
    whole = sample.depth[None, None]
    truth = F.interpolate(whole, size, mode="nearest-exact")[0, 0]
    # Its means are what is to be predicted: single pixels would have power that is none of the scene's.
    smooth = F.interpolate(1 / whole.double().clamp(max=FARTHEST), size, mode="area")[0, 0]
    depth = fit_depth(disparity, truth)
    power = high_frequency_ratio(power_spectrum(1 / depth), power_spectrum(smooth))
    f1 = boundary_score(depth, truth.clamp(max=FARTHEST)).f1
    abs_rel, row = _errors(disparity, sample)
    record = {"abs_rel": abs_rel, "row": row, "log_power": math.log10(max(power, 1e-12))}
    return record if math.isnan(f1) else {**record, "f1": f1}  # a view without an edge


def _errors(disparity: Tensor, sample: Sample) -> tuple[float, float]:
    """AbsRel of the enlarged disparity, and of the image row."""
    both = (_enlarged(disparity, sample), image_row(*sample.depth.shape))
    return tuple(affine_invariant_depth_error(d, sample.depth).abs_rel for d in both)


def fitted(disparity: Tensor, sample: Sample) -> Tensor:
    """Depth of the image's size."""
    return fit_depth(_enlarged(disparity, sample), sample.depth)


def _enlarged(disparity: Tensor, sample: Sample) -> Tensor:
    return F.interpolate(disparity[None, None], tuple(sample.depth.shape), mode="bilinear")[0, 0]
