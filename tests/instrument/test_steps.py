"""Steps of rounds: each lasts from one mark to the next, and nothing is read or added up while a round runs."""

import pytest

from moeprof.instrument.regions import Stopwatch, cpu_stopwatch, stopwatch
from moeprof.instrument.steps import StepTimer


def test_each_step_lasts_from_one_mark_to_the_next() -> None:
    times = iter([100, 103, 110, 1000, 1005, 1006])
    timer = StepTimer(cpu_stopwatch(lambda: next(times)))
    for _ in range(2):
        for _ in range(3):
            timer.mark()
        timer.settle()
    assert timer.rounds == [[3, 7], [5, 1]]


def test_a_round_without_marks_has_no_steps() -> None:
    timer = StepTimer(cpu_stopwatch(lambda: 0))
    timer.settle()
    assert timer.rounds == [[]]


def test_marks_are_read_only_when_the_device_has_finished() -> None:
    log: list[str] = []
    timer = StepTimer(
        Stopwatch(
            lambda: log.append("mark"),
            lambda started, ended: len(log),
            lambda: log.append("settle"),
            lambda: log.append("reuse"),
        )
    )
    for _ in range(3):
        timer.mark()
    assert log == ["mark"] * 3
    timer.settle()
    assert log[3:] == ["settle", "reuse"]
    assert timer.rounds == [[4, 4]]


@pytest.mark.usefixtures("device")
def test_the_marks_of_a_device_are_in_order(device: str) -> None:
    timer = StepTimer(stopwatch(device, iter(range(100)).__next__))
    for _ in range(4):
        timer.mark()
    timer.settle()
    assert len(timer.rounds[0]) == 3
    assert all(elapsed >= 0 for elapsed in timer.rounds[0])
