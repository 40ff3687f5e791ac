"""Counters since activation, throttled warnings, and the node's status on /diagnostics."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import quantiles

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Header

from lotus2_ros.config import NodeConfig
from lotus2_ros.config.live import ONLY_CAMERA, LiveConfig
from lotus2_ros.inference.facts import ModelFacts
from lotus2_ros.inference.geometry import Geometry
from lotus2_ros.msg import FrameReport
from lotus2_ros.ros.report import frame_report
from lotus2_ros.scale.scale import Scale

PERIOD = 1.0  # seconds between two diagnostics
WINDOW = 5.0  # seconds over which rates are measured
LATENCIES = 100  # that the percentiles are of


@dataclass(frozen=True)
class Monitored:
    """The sources of the status while the node is active. The functions may be called in any thread."""

    model: ModelFacts
    device: torch.device
    dropped: Callable[[], int]  # frames that a newer one replaced
    is_wanted: Callable[[], bool]  # someone subscribes to a result


@dataclass(frozen=True)
class Window:
    """Counts of the last seconds."""

    seconds: float
    received: int = 0
    processed: int = 0
    dropped: int = 0
    rejected: int = 0  # messages, references included
    latency: float = 0.0  # seconds, 95th percentile


class Diagnostics:
    """The diagnostics of one camera. Every thread of the camera counts here; the executor thread publishes.

    Every received frame is accounted for: received = processed + dropped + rejected + skipped + in progress.
    """

    def __init__(self, node: Node, config: LiveConfig, camera: str = ONLY_CAMERA) -> None:
        self.frame_id = ""  # of the camera
        self._camera = camera
        self._node = node
        self._config = config
        self._lock = threading.Lock()
        self._warned: dict[str, float] = {}
        self._monitored: Monitored | None = None
        self._state = DiagnosticStatus.OK, "unconfigured"
        self._reset()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        # By the steady clock, because diagnostics go on while a simulated clock is paused.
        node.create_timer(PERIOD, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _reset(self) -> None:
        self._rejections: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._history: deque[tuple[float, Counter[str]]] = deque()
        self._scale: dict[str, str] = {"scale source": "no frame yet"}

    def set_state(self, level: bytes, message: str) -> None:
        """Publish this as the node's status at once, and again every PERIOD until the node is active."""
        self._state = level, message
        self.publish()

    def activate(self, monitored: Monitored) -> None:
        """Count from zero and derive the status from what happens."""
        with self._lock:
            self._reset()
            self._monitored = monitored

    def deactivate(self) -> None:
        self._monitored = None

    # Counters

    def image_received(self) -> None:
        with self._lock:
            self._counts["received"] += 1

    def skip(self) -> None:
        """Count a frame that was not processed because nobody subscribed to a result."""
        with self._lock:
            self._counts["skipped"] += 1

    def reject(self, reason: str, text: str, frame: bool = True) -> None:
        """Count a rejected message, and warn once per warning period and reason. ``frame``: it was an image."""
        now = time.monotonic()
        with self._lock:
            self._rejections[reason] += 1
            self._counts["rejected"] += frame
            quiet = now - self._warned.get(reason, -float("inf")) < self._config.current.node.warn_period
            if not quiet:
                self._warned[reason] = now
        if not quiet:
            of_camera = f" of {self._camera}" if self._camera else ""
            self._node.get_logger().warning(f"rejected a message{of_camera}: {text} [{reason}]")

    def published(self, geometry: Geometry, latency: Mapping[str, float]) -> None:
        """Count a published geometry. ``latency``: seconds per stage."""
        with self._lock:
            self._counts[geometry.stage] += 1
            self._scale = scale_values(geometry.scale)
            if geometry.stage == "core":
                self._latencies.append(latency["total"])

    @property
    def processed(self) -> int:
        """Frames processed since activation."""
        return self._counts["core"]

    def report(
        self, monitored: Monitored, geometry: Geometry, latency: Mapping[str, float], header: Header
    ) -> FrameReport:
        """The FrameReport of one frame, with the counters. ``latency``: seconds per stage."""
        report = frame_report(geometry, monitored.model, self._config.current.sharp, latency, header)
        with self._lock:
            report.frames_received = self._counts["received"]
            report.frames_processed = self._counts["core"]
            report.frames_sharpened = self._counts["sharpener"]
            report.frames_dropped = monitored.dropped()
            report.frames_rejected = self._counts["rejected"]
            report.frames_skipped = self._counts["skipped"]
            report.rejection_reasons = list(self._rejections)
            report.rejection_counts = list(self._rejections.values())
        return report

    # Status

    def publish(self) -> None:
        monitored = self._monitored
        level, message = self._state
        values: dict[str, str] = {}
        if monitored is not None:
            with self._lock:
                level, message, values = self._active_status(monitored)
        name = f"{self._node.get_fully_qualified_name()}: {self._camera or 'perception'}"
        status = DiagnosticStatus(name=name, level=level)
        status.message, status.hardware_id = message, self.frame_id
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(DiagnosticArray(header=Header(stamp=stamp), status=[status]))

    def _active_status(self, monitored: Monitored) -> tuple[bytes, str, dict[str, str]]:
        model = monitored.model
        is_wanted, dropped, counts = monitored.is_wanted(), monitored.dropped(), self._counts
        window = self._window(dropped, is_wanted)
        ended = {
            "processed": counts["core"],
            "dropped": dropped,
            "rejected": counts["rejected"],
            "skipped": counts["skipped"],
        }
        in_progress = counts["received"] - sum(ended.values())
        frames = {"received": counts["received"], **ended, "in progress": in_progress}
        seconds = window.seconds or PERIOD
        values = {
            "input rate (Hz)": f"{window.received / seconds:.1f}",
            "output rate (Hz)": f"{window.processed / seconds:.1f}",
            **_percentiles(self._latencies),
            **{f"frames {name}": str(count) for name, count in frames.items()},
            "frames sharpened": str(counts["sharpener"]),
            "model": model.name,
            "precision": model.precision,
            "device": model.device,
            **self._scale,
            **{f"rejected: {reason}": str(count) for reason, count in self._rejections.items()},
        }
        if monitored.device.type == "cuda":
            values["GPU memory (MB)"] = f"{torch.cuda.memory_allocated(monitored.device) / 1e6:.0f}"
        return *assess(window, is_wanted, self._config.current.node), values

    def _window(self, dropped: int, is_wanted: bool) -> Window:
        """The last WINDOW seconds, or less if someone subscribed later."""
        now = time.monotonic()
        counts = self._counts + Counter(dropped=dropped, messages=sum(self._rejections.values()))
        if not is_wanted:
            self._latencies.clear()
            self._history.clear()
        self._history.append((now, counts))
        while len(self._history) > 2 and now - self._history[1][0] >= WINDOW:
            self._history.popleft()
        begun, before = self._history[0]
        names = "received", "core", "dropped", "messages"
        latency = quantiles(self._latencies, n=20)[18] if len(self._latencies) > 1 else 0.0
        received, processed, dropped, rejected = (counts[name] - before[name] for name in names)
        return Window(now - begun, received, processed, dropped, rejected, latency)


def assess(window: Window, is_wanted: bool, config: NodeConfig) -> tuple[bytes, str]:
    """Level and message of an active node."""
    problems = [f"{window.rejected} messages rejected"] if window.rejected else []
    if is_wanted and window.seconds >= PERIOD and not window.received:
        return DiagnosticStatus.STALE, "no images"
    if is_wanted and window.seconds >= WINDOW:
        rate, drops = window.processed / window.seconds, window.dropped / window.received
        if rate < config.warn_rate:
            problems.append(f"{rate:.2g} results per second, expected at least {config.warn_rate:g}")
        if drops > config.warn_drops:
            problems.append(f"{drops:.0%} of the frames dropped, expected at most {config.warn_drops:.0%}")
    if 0 < config.warn_latency < window.latency:
        problems.append(f"latency of {window.latency:.2g} s, expected at most {config.warn_latency:g} s")
    if problems:
        return DiagnosticStatus.WARN, "; ".join(problems)
    return DiagnosticStatus.OK, "running" if is_wanted else "idle: nobody subscribes to a result"


def scale_values(scale: Scale) -> dict[str, str]:
    """The source of the scale, its age, and why nothing better was used."""
    values = {"scale source": scale.source}
    if scale.metric:
        values["scale age (s)"] = f"{scale.age:.2f}"
    if math.isfinite(scale.reference_error):
        values["reference error (%)"] = f"{100 * scale.reference_error:.1f}"
    return {**values, "scale note": scale.note} if scale.note else values


def _percentiles(seconds: deque[float]) -> dict[str, str]:
    if len(seconds) < 2:
        return {}
    cuts = quantiles(seconds, n=20)
    return {"latency p50 (ms)": f"{1e3 * cuts[9]:.1f}", "latency p95 (ms)": f"{1e3 * cuts[18]:.1f}"}
