"""Levels and texts of the diagnostics."""

from dataclasses import replace

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from lotus2_ros.config import NodeConfig
from lotus2_ros.ros.diagnostics import Window, assess, scale_values
from lotus2_ros.scale.scale import Scale

FINE = {"seconds": 5.0, "received": 50, "processed": 50, "dropped": 0, "rejected": 0, "latency": 0.1}


def test_diagnostics_say_where_meters_come_from_and_what_is_amiss():
    fitted = Scale(0.5, 0.1, "reference_points", True, age=0.4321)
    assert scale_values(fitted) == {"scale source": "reference_points", "scale age (s)": "0.43"}
    told = scale_values(replace(fitted, reference_error=0.034))
    assert told == {"scale source": "reference_points", "scale age (s)": "0.43", "reference error (%)": "3.4"}
    relative = Scale(0.5, 0.1, "normals", False, note="the last fit is old")
    assert scale_values(relative) == {"scale source": "normals", "scale note": "the last fit is old"}


@pytest.mark.parametrize(
    ("change", "wanted", "level", "message"),
    [
        ({}, True, DiagnosticStatus.OK, "running"),
        ({}, False, DiagnosticStatus.OK, "idle: nobody subscribes to a result"),
        ({"processed": 0, "received": 0}, True, DiagnosticStatus.STALE, "no images"),
        ({"seconds": 0.5, "processed": 0, "received": 0}, True, DiagnosticStatus.OK, "running"),
        ({"rejected": 2}, True, DiagnosticStatus.WARN, "2 messages rejected"),
        ({"processed": 4}, True, DiagnosticStatus.WARN, "0.8 results per second, expected at least 1"),
        ({"processed": 0}, True, DiagnosticStatus.WARN, "0 results per second, expected at least 1"),
        ({"seconds": 2.0, "processed": 0}, True, DiagnosticStatus.OK, "running"),  # it has only begun
        ({"dropped": 48}, True, DiagnosticStatus.WARN, "96% of the frames dropped, expected at most 90%"),
        ({"latency": 1.25}, True, DiagnosticStatus.WARN, "latency of 1.2 s, expected at most 1 s"),
        ({"rejected": 1, "latency": 3.0}, True, DiagnosticStatus.WARN, "1 messages rejected; latency of 3 s, "),
    ],
)
def test_the_level_follows_what_happened_in_the_window(change, wanted, level, message):
    got = assess(Window(**{**FINE, **change}), wanted, NodeConfig())
    assert got[0] == level and got[1].startswith(message)


def test_limits_are_parameters_and_can_be_switched_off():
    slow = Window(**{**FINE, "processed": 1, "dropped": 49, "latency": 9.0})
    assert assess(slow, True, NodeConfig(warn_rate=0.0, warn_drops=1.0, warn_latency=0.0))[1] == "running"
    assert assess(Window(**FINE), True, NodeConfig(warn_rate=20.0))[0] == DiagnosticStatus.WARN
