"""The report: Markdown, JSON and plots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lotus2_ros.data.benchmarks import BENCHMARKS
from lotus2_ros.evaluation.angles import LIMITS
from lotus2_ros.evaluation.measure import Record
from lotus2_ros.evaluation.records import Key
from lotus2_ros.evaluation.spectrum import BINS
from lotus2_ros.evaluation.summary import POOLED, Means, figures, flat, high_frequency, ratio_to_row
from lotus2_ros.evaluation.tables import Table, markdown, published_table, ranked_table

Summary = Mapping[str, Mapping[str, Means]]
POOLED_TITLES = {"scenes": "held-out scenes", "things": "held-out views of things", "frames": "recorded frames"}
STAGES = {"core": "core predictor", "sharp": "sharpened"}
DEPTH = {"AbsRel": "abs_rel", "SqRel": "sq_rel", "RMSE": "rmse", "RMSE log": "rmse_log", "log10": "log10",
         "δ1": "delta1", "δ2": "delta2", "δ3": "delta3", "1/m RMSE": "inverse_rmse", "SI-log": "si_log"}  # fmt: skip
# Names in the published tables: of data sets, and of metrics with their path in a summary and the factor to their unit.
PUBLISHED_SETS = {"NYUv2": "nyuv2", "KITTI": "kitti", "ETH3D": "eth3d", "ScanNet": "scannet", "DIODE": "diode",
                  "iBims-1": "ibims1", "Sintel": "sintel"}  # fmt: skip
PUBLISHED_METRICS = {"AbsRel": ("depth/abs_rel", 100), "δ1": ("depth/delta1", 100),
                     "mean": ("pooled/mean", 1), "11.25°": ("pooled/within/11.25", 100)}  # fmt: skip


def write_report(folder: Path, settings: Mapping[str, Any], summary: Summary, records: Mapping[Key, Record]) -> str:
    """Write report.md, report.json, errors.png and spectrum.png; returns the tables."""
    tables = "\n\n".join(_tables(summary))
    (folder / "report.md").write_text(f"# Evaluation of {settings['model']}\n\n{tables}\n")
    report = {"settings": settings, "figures": figures(summary), "summary": summary}
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    _plot_errors(folder / "errors.png", records)
    if "detail" in summary:
        _plot_spectrum(folder / "spectrum.png", summary["detail"][POOLED])
    return tables


def _tables(summary: Summary) -> Iterator[str]:
    for group in ("scenes", "things", "frames"):
        if group in summary:
            header = [
                "",
                "images",
                "AbsRel",
                "δ1",
                "sharpened",
                "image row",
                "AbsRel / row",
                "normals",
                "sharpened",
                "agreement",
            ]
            yield markdown(header, [_overview(_title(group, name), means) for name, means in summary[group].items()])
    if "detail" in summary:
        header = ["at the model's resolution", "images"]
        for title in STAGES.values():
            header += [f"boundary F1, {title}", "precision", "recall", "high-frequency power over the truth's"]
        yield markdown(header, [_detail(_title("scenes", name), means) for name, means in summary["detail"].items()])
    if "sequences" in summary:
        header = ["moving camera", "sequences", "flicker", "fitted per frame", "sharpened", "fitted per frame"]
        paths = [f"{stage}/{name}" for stage in STAGES for name in ("flicker", "flicker_fitted")]
        rows = [_row(_title("scenes", name), means, paths) for name, means in summary["sequences"].items()]
        yield markdown(header, rows, digits=4)
    yield from _benchmark_tables(summary)
    if judged := figures(summary):
        yield markdown(["figure", ""], list(judged.items()))


def _title(group: str, name: str) -> str:
    return f"**{POOLED_TITLES[group]}**" if name == POOLED else name


def _row(name: str, means: Means, paths: Sequence[str]) -> list[Any]:
    return [name, means["samples"], *(means.get(path) for path in paths)]


def _overview(name: str, means: Means) -> list[Any]:
    errors = _row(name, means, ["core/depth/abs_rel", "core/depth/delta1", "sharp/depth/abs_rel", "row/depth/abs_rel"])
    angles = [means.get(path) for path in ("core/normals", "sharp/normals", "core/agreement")]
    return [*errors, ratio_to_row(means), *(None if angle is None else f"{angle:.1f}°" for angle in angles)]


def _detail(name: str, means: Means) -> list[Any]:
    cells = [name, means["samples"]]
    for stage in STAGES:
        cells += [means.get(f"{stage}/boundary/{score}") for score in ("f1", "precision", "recall")]
        ratio = high_frequency(means, stage)
        cells.append(None if ratio is None else f"{ratio:.2g}")
    return cells


def _benchmark_tables(summary: Summary) -> Iterator[str]:
    angles = ["mean", "median", *(f"within/{limit}" for limit in LIMITS)]
    limits = [f"{limit:g}°" for limit in LIMITS]
    for task, header, paths in (
        ("depth", list(DEPTH), [f"depth/{metric}" for metric in DEPTH.values()]),
        ("normals", ["mean", "median", *limits], [f"pooled/{metric}" for metric in angles]),
    ):
        if sets := summary.get(task):
            rows = []
            for name, means in sets.items():
                count, published = means["samples"], BENCHMARKS[name].images
                images = count if count == published else f"{count} of {published}"
                for stage, title in STAGES.items():
                    if any(path.startswith(f"{stage}/") for path in means):
                        rows.append([name, title, images, *(means.get(f"{stage}/{path}") for path in paths)])
            yield markdown(["data set", "", "images", *header], rows)
            yield ranked_table(_beside_published(task, sets))


def _beside_published(task: str, sets: Mapping[str, Means]) -> Table:
    """The paper's table with the results of this evaluation, by stage."""
    table = published_table(task)
    for stage, title in STAGES.items():
        found = {}
        for dataset, metric in table.columns:
            path, factor = PUBLISHED_METRICS[metric]
            means = sets.get(PUBLISHED_SETS[dataset] + ("-normals" if task == "normals" else ""), {})
            if f"{stage}/{path}" in means:
                found[dataset, metric] = factor * means[f"{stage}/{path}"]
        if found:
            table = table.with_method(f"**this model, {title}**", found)
    return table


def _plot_errors(path: Path, records: Mapping[Key, Record]) -> None:
    """Histograms of AbsRel over all images, for both stages and the image-row baseline."""
    known = [flat(record) for (group, *_), record in records.items() if group != "detail"]
    figure, axes = _figure("AbsRel of an image", "images")
    for stage, title in {**STAGES, "row": "image row"}.items():
        errors = [record[f"{stage}/depth/abs_rel"] for record in known if f"{stage}/depth/abs_rel" in record]
        if errors:
            axes.hist(np.clip(errors, 0, 1), bins=np.linspace(0, 1, 41), histtype="step", label=title)
    axes.legend()
    figure.savefig(path)


def _plot_spectrum(path: Path, means: Means) -> None:
    """Fig. 12 of the paper: mean log power by spatial frequency."""
    figure, axes = _figure("spatial frequency / Nyquist frequency", "log10 of the power")
    for stage, title in {"truth": "truth", **STAGES}.items():
        if f"{stage}/spectrum" in means:
            axes.plot((np.arange(BINS) + 0.5) / BINS, means[f"{stage}/spectrum"], label=title)
    axes.legend()
    figure.savefig(path)


def _figure(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    return figure, axes
