import pytest

from lotus2_ros.demo import deadlines


@pytest.mark.parametrize(
    ("load", "scale", "seconds"), [(0.5, "1", 10), (2.0, "1", 10), (10.0, "1", 50), (10.0, "3", 150)]
)
def test_a_busy_machine_is_allowed_more_time(monkeypatch, load, scale, seconds):
    monkeypatch.setattr(deadlines.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(deadlines.os, "cpu_count", lambda: 2)
    monkeypatch.setenv(deadlines.SCALE, scale)
    assert deadlines.allowed(10.0) == seconds


def test_the_scale_is_one_without_the_variable(monkeypatch):
    monkeypatch.delenv(deadlines.SCALE, raising=False)
    monkeypatch.setattr(deadlines.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert deadlines.allowed(7.0) == 7.0
