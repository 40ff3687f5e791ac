from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest

from lotus2_ros import scenes


@pytest.mark.slow
def test_alignment_bench_measures_everything_it_names(bench, tmp_path):
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    seen = scenes.view(0, 320, 240, "room")
    cv2.imwrite(str(recorded / "rgb.png"), seen.image.numpy()[..., ::-1])
    np.save(recorded / "depth.npy", seen.depth.numpy())
    names = dict(zip(("fx", "fy", "cx", "cy"), seen.camera.K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(), strict=True))
    (recorded / "intrinsics.json").write_text(json.dumps(names))
    printed = bench("benchmarks.alignment", "--quick", "--frames", str(tmp_path))
    table = printed[printed.index("| what |") :].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table if line]
    assert all(math.isfinite(float(measured.split()[0])) for _, _, measured, *_ in rows)
    assert {what.split(":")[0] for what, *_ in rows} == {
        "AbsRel by source of the scale", "CPU time of a frame's scale",
        "fit_scale_shift", "shift_from_normals", "scale_from_ground",
        "AbsRel of a fit to a few points, over that of least squares with all",  # only of recorded frames
        "AbsRel between the points, with the field",  # and these
        "field over the line, geometric mean", "field over the better interpolation",
        "angle of normals of the depth with the field, over nearest interpolation",
        "angle of normals of the depth with the field, over linear interpolation",
        "AbsRel of sharpened depth over coarse depth, with the field",
        "AbsRel by odometry, over that by 200 true points", "size of the points by odometry", "time of odometry",
        "sigma", "scale of a standing camera", "one pixel of a standing camera",
        "drift of a moving camera", "AbsRel of a moving camera",
        "sky missed", "sky indoors", "flying pixels left", "time, 640x480",
        "floor within 3 m left more than 5 cm too high",
    }  # fmt: skip
    assert {"none, after one factor; room", "none, after one factor; recorded"} <= {case for _, case, *_ in rows}
    assert any(what.startswith("shift_from_normals") and case.startswith("recorded") for what, case, *_ in rows)
