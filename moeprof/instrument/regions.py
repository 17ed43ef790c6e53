"""The instrument of the pass `breakdown`: marks where regions begin and end, and adds the times up off the clock."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from moeprof.instrument.clock import Clock
from moeprof.instrument.probe import Probe, observed_by
from moeprof.records.regions import OTHER, RegionKey

Mark = Any
"""A point in time: nanoseconds on a CPU, an event on CUDA."""


@dataclass(frozen=True)
class Stopwatch:
    """How points in time are marked, and how they become nanoseconds afterwards."""

    mark: Callable[[], Mark]
    elapsed_ns: Callable[[Mark, Mark], int]
    settle: Callable[[], None] = lambda: None
    """Waits until every mark has happened."""
    reuse: Callable[[], None] = lambda: None
    """Releases all marks."""


def cpu_stopwatch(clock: Clock) -> Stopwatch:
    """A stopwatch whose marks are readings of `clock`."""
    return Stopwatch(clock, lambda started, ended: ended - started)


def cuda_stopwatch() -> Stopwatch:
    """A stopwatch whose marks are events in the current stream: the host waits for the device only in `settle`."""
    events = Events()
    return Stopwatch(events.mark, events.elapsed_ns, torch.cuda.synchronize, events.reuse)


class Events:
    """CUDA events that are reused, because making one costs more than recording it."""

    def __init__(self) -> None:
        self.made: list[torch.cuda.Event] = []
        self.used = 0

    def mark(self) -> torch.cuda.Event:
        """An event that has just been recorded."""
        if self.used == len(self.made):
            self.made.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        event = self.made[self.used]
        self.used += 1
        event.record()
        return event

    @staticmethod
    def elapsed_ns(started: torch.cuda.Event, ended: torch.cuda.Event) -> int:
        """Device time between two completed events, nanoseconds; the driver resolves half a microsecond."""
        return round(float(started.elapsed_time(ended)) * 1e6)

    def reuse(self) -> None:
        """Makes all events available for recording again."""
        self.used = 0


class RegionTimer(Probe):
    """Time per region and layer, round by round.

    It is itself the context that a region enters, since regions never nest: two marks and three appends are all that a region
    costs inside a round. They are added up in `settle`, off the clock.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch = stopwatch
        self.rounds: list[dict[RegionKey, int]] = []
        """Nanoseconds of every settled round; `other` is the time outside all regions, so that they add up to the round."""
        self.keys: list[RegionKey] = []
        self.marks: list[Mark] = []
        """Begin and end of every region entered since the last round was settled."""
        self.whole: list[Mark] = []
        self.mark, self.keep, self.note = stopwatch.mark, self.marks.append, self.keys.append

    def region(self, name: str, layer: str) -> "RegionTimer":
        self.note((name, layer))
        return self

    def __enter__(self) -> None:
        if len(self.marks) & 1:
            raise RuntimeError(f"region {self.keys[-1]} begins inside {self.keys[-2]}: regions never overlap")
        self.keep(self.mark())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.keep(self.mark())

    def observing(self, play: Callable[[], object]) -> Callable[[], None]:
        """`play` as a round that this timer observes."""

        def observed() -> None:
            with observed_by(self):
                self.whole.append(self.mark())
                play()
                self.whole.append(self.mark())

        return observed

    def settle(self) -> None:
        """Adds up the marks since the last call as one round; does nothing if there are none."""
        if not self.whole:
            return
        self.stopwatch.settle()
        elapsed_ns, times = self.stopwatch.elapsed_ns, dict.fromkeys(self.keys, 0)
        for key, started, ended in zip(self.keys, self.marks[::2], self.marks[1::2], strict=True):
            times[key] += elapsed_ns(started, ended)
        # Events are read one by one, and each reading is rounded: the remainder can come out below zero.
        other_ns = max(elapsed_ns(*self.whole) - sum(times.values()), 0)
        self.rounds.append(times | {(OTHER, ""): other_ns})
        for used in (self.keys, self.marks, self.whole):
            used.clear()
        self.stopwatch.reuse()


def region_timer(device: str, clock: Clock) -> RegionTimer:
    """The region timer for `device`; `clock` is used on a CPU."""
    return RegionTimer(stopwatch(device, clock))


def stopwatch(device: str, clock: Clock) -> Stopwatch:
    """The stopwatch for `device`; `clock` is used on all devices but CUDA."""
    return cuda_stopwatch() if device == "cuda" else cpu_stopwatch(clock)
