"""The demo's results as text."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median

import numpy as np

from lotus2_ros.bags.writer import REFERENCE_TOPIC
from lotus2_ros.demo.results import Results
from lotus2_ros.ros.report import COUNTERS


def table(results: Results, played: int) -> str:
    return "\n".join([*summary(results, played), "", *topic_lines(results), "", *latency_lines(results)])


def summary(results: Results, played: int) -> list[str]:
    last = results.reports[-1]
    # Counters of the core and the sharpener's report come from one set, so the largest is the newest.
    counters = {name: max(getattr(r, f"frames_{name}") for r in results.reports) for name in COUNTERS}
    lines = [
        f"model     {last.model}, {last.precision} on {last.device}",
        f"frames    {played} played, " + ", ".join(f"{value} {name}" for name, value in counters.items()),
    ]
    rejections = zip(last.rejection_reasons, last.rejection_counts, strict=True)
    lines += [f"rejected  {count} x {reason}" for reason, count in rejections]
    sources = Counter(r.scale_source for r in results.reports if r.stage == "core")
    lines.append("scale     " + ", ".join(f"{source}: {count} frames" for source, count in sources.items()))
    notes = Counter(r.scale_note for r in results.reports if r.scale_note)
    lines += [f"          {count} x {note}" for note, count in notes.items()]
    against = "the reference depth" if results.truth == REFERENCE_TOPIC else "exact depth"
    for stage, errors in results.errors.items():
        absrel, delta1 = median(e.abs_rel for e in errors), median(e.delta1 for e in errors)
        figures = f"AbsRel {absrel:.3f}, delta1 {delta1:.3f}"
        lines.append(f"depth     {stage}: {figures} against {against}, median of {len(errors)} frames")
    return lines


def topic_lines(results: Results) -> list[str]:
    width = max(map(len, results.counts))
    return [f"{'topic':{width}}  messages", *(f"{t:{width}}  {n:8d}" for t, n in sorted(results.counts.items()))]


def latency_lines(results: Results) -> list[str]:
    """Median and 95th percentile of each stage's milliseconds."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for report in results.reports:
        for name, ms in zip(report.latency_names, report.latency_ms, strict=True):
            values[report.stage, name].append(ms)
    lines = [f"{'latency, ms':24}  median     p95"]
    for (stage, name), ms in values.items():
        lines.append(f"{stage + ' ' + name:24}  {np.percentile(ms, 50):6.1f}  {np.percentile(ms, 95):6.1f}")
    return lines
