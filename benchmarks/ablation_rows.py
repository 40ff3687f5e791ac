"""The rows of `benchmarks.ablation`: what is trained, by the analysis of the papers that it repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EULER_STEPS = 10
# T', and the most steps at inference (arXiv 2512.01030, figure 6; 2409.18124, sections 4.1 to 4.3).
TIME_STEPS, MOST_STEPS = (1000, 50, 10, 1), 50
# All of the 800 views, and every 15th.
DATA = {"800 views": 1, "54 views": 15}


@dataclass(frozen=True)
class Training:
    """A network and its stages. rows: names of what comes of each stage. run: the file in config/train with network and
    data. every: which views are trained on."""

    name: str
    rows: tuple[str, ...]
    objectives: tuple[dict[str, Any], ...]
    patch: int = 2
    run: str = "bundled.yaml"
    every: int = 1


def _single_step(prediction: str, continuity: bool = False) -> dict[str, Any]:
    return {"kind": "single_step", "prediction": prediction, "continuity": continuity}


def _steps(time_steps: int) -> dict[str, int]:
    return {"time_steps": time_steps, "steps": min(time_steps, MOST_STEPS)}


def _diffusion(prediction: str, time_steps: int, reconstruction: bool = False) -> dict[str, Any]:
    return {"kind": "diffusion", "prediction": prediction, "reconstruction": reconstruction, **_steps(time_steps)}


# Lotus-2, table III, under the paper's names.
TABLE = (
    Training("stochastic", ("Stochastic-DA",), ({"kind": "stochastic_flow", "steps": EULER_STEPS},)),
    Training("deterministic", ("Deterministic-DA",), ({"kind": "deterministic_flow", "steps": EULER_STEPS},)),
    Training("residual", ("+ Single-Step Formulation",), (_single_step("residual"),)),
    Training("clean", ("+ Clean-Data ScaleInput",), (_single_step("clean"),)),
    Training(
        "continuity",
        ("+ Local Continuity Module", "+ Detail Sharpener"),
        (_single_step("clean", continuity=True), {"kind": "sharpener"}),
    ),
    Training("unpacked", ("(w/o Pack-Unpack)",), (_single_step("clean"),), patch=1),
)

# Lotus-2, figure 6: the deterministic flow by the number of its time-steps and the amount of data.
FLOWS = tuple(
    Training(
        f"flow-{time_steps}-{every}",
        (f"T' = {time_steps}, {views}",),
        ({"kind": "deterministic_flow", **_steps(time_steps)},),
        every=every,
    )
    for views, every in DATA.items()
    for time_steps in TIME_STEPS
)

# Lotus: what its diffusion predicts, by the number of time-steps; the last is Lotus-G.
DIFFUSIONS = (
    *(
        Training(
            f"{prediction}-{time_steps}",
            (f"{prediction}, T' = {time_steps}",),
            (_diffusion(prediction, time_steps),),
            run="lotus_d.yaml",
        )
        for prediction in ("noise", "clean")
        for time_steps in TIME_STEPS
    ),
    Training("preserved-1", ("clean, T' = 1, detail preserver",), (_diffusion("clean", 1, True),), run="lotus_d.yaml"),
)

ANALYSES: Mapping[str, tuple[Training, ...]] = {"table": TABLE, "flows": FLOWS, "diffusions": DIFFUSIONS}
