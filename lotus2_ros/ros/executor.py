"""An executor that outlives the exceptions of callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor


class ResilientExecutor(SingleThreadedExecutor):
    """Passes the exceptions of subscriptions, timers and services to ``failed`` and goes on spinning.

    rclpy's own executors raise them from ``spin``, which ends the process. If a message cannot be taken, because its
    bytes are no message of this type, rclpy would never serve the node's default callback group again.
    """

    def __init__(self, failed: Callable[[Exception], None], **options: Any) -> None:
        super().__init__(**options)
        self._failed = failed

    def spin_once(self, timeout_sec: float | None = None) -> None:
        try:
            super().spin_once(timeout_sec)
        except (ExternalShutdownException, ShutdownException):
            raise
        except Exception as error:  # a callback may raise anything; the node goes on
            if not self._context.ok():  # a shutdown in the middle of a callback makes rclpy's next call fail
                raise ExternalShutdownException from error
            self._failed(error)

    def _take_subscription(self, sub: Any) -> Any:
        return self._guarded(super()._take_subscription, sub)

    def _take_service(self, srv: Any) -> Any:
        return self._guarded(super()._take_service, srv)

    def _guarded(self, take: Callable[[Any], Any], entity: Any) -> Any:
        """The result of ``take``; None, as if nothing had arrived, if it raises."""
        try:
            return take(entity)
        except Exception as error:  # rclpy raises errors of several classes for bytes it cannot convert
            self._failed(error)
            return None
