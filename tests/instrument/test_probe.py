"""One instrument at a time, none by default, and none left behind after a failure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from moeprof.instrument.probe import UNOBSERVED, Probe, active, collective_probe, observed_by, region


class Log(Probe):
    """Keeps regions as they are entered and left."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def region(self, name: str, layer: str) -> Iterator[None]:
        self.lines.append(f"> {name} {layer}")
        yield
        self.lines.append(f"< {name} {layer}")


def test_nobody_looks_on_by_default() -> None:
    assert active() is None
    assert region("gate", "3") is UNOBSERVED


def test_a_probe_sees_the_regions_inside_its_block_only() -> None:
    log = Log()
    with region("embed"):
        pass
    with observed_by(log):
        assert active() is log
        with region("gate", "3"):
            log.lines.append("work")
    with region("head"):
        pass
    assert log.lines == ["> gate 3", "work", "< gate 3"]
    assert active() is None


def test_a_second_probe_is_refused_and_the_first_stays() -> None:
    first = Log()
    with observed_by(first):
        with pytest.raises(RuntimeError, match="only one probe can be active"), observed_by(Log()):
            pass
        assert active() is first
    assert active() is None


def test_a_failure_under_a_probe_leaves_none_behind() -> None:
    with pytest.raises(ValueError, match="broken"), observed_by(Probe()):
        raise ValueError("broken")
    assert active() is None


class Postmaster(Probe):
    """Wants to see collectives."""

    def exchanged(self, region: str, layer: str, to_bytes: Sequence[int], start_ns: int, wait_ns: int, end_ns: int) -> None:
        raise NotImplementedError


def test_only_a_probe_that_asks_for_collectives_is_told_of_them() -> None:
    assert collective_probe() is None
    with observed_by(Log()):
        assert collective_probe() is None
    with observed_by(probe := Postmaster()):
        assert collective_probe() is probe


def test_a_probe_that_wants_nothing_sees_nothing() -> None:
    with observed_by(Probe()), region("gate", "1"):
        pass
