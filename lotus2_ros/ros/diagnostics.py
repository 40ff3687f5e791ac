"""Counters, throttled warnings, frame reports and /diagnostics."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from statistics import quantiles

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Header

from lotus2_ros.inference.estimator import Estimator
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.msg import FrameReport
from lotus2_ros.ros.threads import LatestQueue
from lotus2_ros.scale.scale import Scale

WINDOW = 100  # latencies remembered
PERIOD = 1.0  # seconds between two diagnostics


class Diagnostics:
    """What happened since activation. Written by the node's, the model's and the sender's thread."""

    def __init__(self, node: Node, estimator: Estimator, queue: LatestQueue, warn_period: Callable[[], float]) -> None:
        self._node = node
        self._estimator = estimator
        self._queue = queue
        self._warn_period = warn_period
        self._lock = threading.Lock()
        self._warned: dict[str, float] = {}
        self._rejections: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._totals: deque[float] = deque(maxlen=WINDOW)
        self._previous: dict[str, int] = {}
        self._since = time.monotonic()
        self._scale: dict[str, str] = {"scale source": "no frame yet"}

    def image_received(self) -> None:
        with self._lock:
            self._counts["received"] += 1

    def reject(self, reason: str, text: str, frame: bool = True) -> None:
        """Count a dropped message and say so once per warning period and reason. ``frame``: it was an image."""
        now = time.monotonic()
        with self._lock:
            self._rejections[reason] += 1
            self._counts["rejected"] += frame
            quiet = now - self._warned.get(reason, -float("inf")) < self._warn_period()
            if not quiet:
                self._warned[reason] = now
        if not quiet:
            self._node.get_logger().warning(f"dropped a message: {text} [{reason}]")

    def done(self, geometry: Geometry, latency: Mapping[str, float]) -> None:
        """Count a published geometry with its latencies in seconds."""
        with self._lock:
            self._counts[geometry.stage] += 1
            self._scale = scale_values(geometry.scale)
            if geometry.stage == "core":
                self._totals.append(latency["total"])

    @property
    def dropped(self) -> int:
        return sum(self._queue.dropped.values())

    def report(self, geometry: Geometry, latency: Mapping[str, float], header: Header) -> FrameReport:
        """What was done with one frame, with the counters; ``latency`` in seconds."""
        with self._lock:
            reasons = dict(self._rejections)
            counts = self._counts.copy()
        report = frame_report(geometry, self._estimator, latency, header)
        report.frames_received = counts["received"]
        report.frames_processed = counts["core"]
        report.frames_sharpened = counts["sharpener"]
        report.frames_dropped = self.dropped
        report.frames_rejected = counts["rejected"]
        report.rejection_reasons = list(reasons)
        report.rejection_counts = list(reasons.values())
        return report

    def diagnostics(self) -> DiagnosticArray:
        """The node's status since the last call."""
        model, device = self._estimator.model, self._estimator.device
        with self._lock:
            elapsed, self._since = time.monotonic() - self._since, time.monotonic()
            now = {
                "in": self._counts["received"],
                "out": self._counts["core"],
                "rejected": sum(self._rejections.values()),
            }
            delta = {key: value - self._previous.get(key, 0) for key, value in now.items()}
            self._previous = now
            values = {
                "input rate (Hz)": f"{delta['in'] / elapsed:.1f}",
                "output rate (Hz)": f"{delta['out'] / elapsed:.1f}",
                **_percentiles(self._totals),
                "frames dropped": str(self.dropped),
                "frames sharpened": str(self._counts["sharpener"]),
                "model": model.name,
                "precision": model.precision,
                "device": device_name(device),
                **self._scale,
                **{f"rejected: {reason}": str(count) for reason, count in self._rejections.items()},
            }
        if device.type == "cuda":
            values["GPU memory (MB)"] = f"{torch.cuda.memory_allocated(device) / 1e6:.0f}"
        return diagnostic_array(self._node, *_level(delta), values)


def diagnostic_array(node: Node, level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticArray:
    """The node's one status, of this moment."""
    status = DiagnosticStatus(name=f"{node.get_fully_qualified_name()}: perception", hardware_id="camera")
    status.level, status.message = level, message
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(header=Header(stamp=node.get_clock().now().to_msg()), status=[status])


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def scale_values(scale: Scale) -> dict[str, str]:
    """Where metres come from, how old they are, and what is amiss."""
    values = {"scale source": scale.source}
    if scale.metric:
        values["scale age (s)"] = f"{scale.age:.2f}"
    return {**values, "scale note": scale.note} if scale.note else values


def _level(delta: Mapping[str, int]) -> tuple[bytes, str]:
    if delta["rejected"]:
        return DiagnosticStatus.WARN, f"{delta['rejected']} messages rejected"
    if not delta["in"]:
        return DiagnosticStatus.STALE, "no images"
    if not delta["out"]:
        return DiagnosticStatus.OK, "images come, nobody subscribes to a result"
    return DiagnosticStatus.OK, "running"


def _percentiles(seconds: deque[float]) -> dict[str, str]:
    if len(seconds) < 2:
        return {}
    cuts = quantiles(seconds, n=20)
    return {"latency p50 (ms)": f"{1e3 * cuts[9]:.1f}", "latency p95 (ms)": f"{1e3 * cuts[18]:.1f}"}


def sharpener_note(estimator: Estimator) -> str:
    """Why nothing is sharpened; empty if it is."""
    model, sharp = estimator.model, estimator.config.sharp
    if not any(map(model.has_sharpener, model.tasks)):
        return f"{model.name} has no detail sharpener"
    if not sharp.enabled:
        return "sharp.enabled is false"
    if not (model.sharpens or sharp.steps):
        return f"{model.name} gains little by it: it sharpens when sharp.steps says how often"
    return ""


def frame_report(geometry: Geometry, estimator: Estimator, latency: Mapping[str, float], header: Header) -> FrameReport:
    """What was done with one frame, without counters; ``latency`` in seconds."""
    scale, model = geometry.scale, estimator.model
    return FrameReport(
        header=header,
        stage=geometry.stage,
        model=model.name,
        precision=model.precision,
        device=device_name(estimator.device),
        scale_source=scale.source,
        metric=scale.metric,
        scale=scale.scale,
        shift=scale.shift,
        scale_age=scale.age,
        inlier_fraction=scale.inlier_fraction,
        scale_note=scale.note,
        uncertainty=math.nan if geometry.uncertainty is None else float(geometry.uncertainty.mean()),
        sharpener_note=sharpener_note(estimator),
        latency_names=list(latency),
        latency_ms=[1e3 * seconds for seconds in latency.values()],
    )
