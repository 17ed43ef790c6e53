"""The clock counts nanoseconds, and waits for a GPU before it is read."""

import pytest
import torch

from moeprof.instrument.clock import synchronized, wall_clock


def test_the_wall_clock_never_goes_back() -> None:
    readings = [wall_clock() for _ in range(100)]
    assert readings == sorted(readings)
    assert all(isinstance(reading, int) for reading in readings)


def test_on_a_cpu_there_is_nothing_to_wait_for() -> None:
    assert synchronized("cpu") is wall_clock


def test_on_a_gpu_all_work_is_finished_before_the_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    monkeypatch.setattr("moeprof.instrument.clock.wall_clock", lambda: order.append("read") or 7)
    assert synchronized("cuda")() == 7
    assert order == ["wait", "read"]
