"""The start of ROS in a process."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import rclpy
from rclpy.context import Context
from rclpy.signals import SignalHandlerOptions

MAX_DOMAIN = 232  # of DDS: the ports of higher ones do not exist
SOURCE = re.compile(r",? at /\S+?:\d+")  # the line of C that tells of an error


class RosStartError(ValueError):
    """ROS does not start with these arguments in this environment."""


def start_ros(
    args: Sequence[str] | None = None,
    *,
    context: Context | None = None,
    signals: SignalHandlerOptions = SignalHandlerOptions.NO,
) -> None:
    """``rclpy.init``, whose errors say what to do: arguments of ROS, files of parameters, ROS_DOMAIN_ID, the log.

    Raises RosStartError.
    """
    try:
        rclpy.init(args=args, context=context, signal_handler_options=signals)
    except (RuntimeError, UnicodeError) as error:
        reason = f"{type(error).__name__}: {' '.join(SOURCE.sub('', str(error)).split())}"
        advice = "; set ROS_LOG_DIR to a folder that can be written" if "log directory" in reason else ""
        if os.environ.get("ROS_SECURITY_ENABLE") == "true":
            advice += "; ROS_SECURITY_ENABLE is true: set ROS_SECURITY_KEYSTORE to a folder with the keys of this node"
        raise RosStartError(f"ROS does not start: {reason}{advice}") from None
    domain = (context or rclpy.get_default_context()).get_domain_id()
    if domain > MAX_DOMAIN:
        rclpy.shutdown(context=context)
        raise RosStartError(f"expected a ROS_DOMAIN_ID of at most {MAX_DOMAIN}, got {domain}")
