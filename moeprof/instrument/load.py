"""How busy the machine is with something else, by the system's own counts of processor time; read outside of timed rounds."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moeprof.records.run.machine_load import MachineLoad
from moeprof.records.system.resources import num_cores

SHORTEST_S = 4.0
"""Processor time of a stretch, idle time included; the system counts in ticks of about 10 ms, which say little of less."""


@dataclass(frozen=True)
class Usage:
    """Processor time of all cores since some start, in seconds."""

    total: float
    """Idle time included."""
    idle: float
    stolen: float
    """Taken by other virtual machines."""
    own: float
    """Used by the ranks of this run on this machine."""

    def shares_since(self, before: "Usage") -> tuple[float, float]:
        """The shares that other processes and other virtual machines used since `before`."""
        total, idle, stolen, own = (getattr(self, name) - getattr(before, name) for name in ("total", "idle", "stolen", "own"))
        return max(total - idle - stolen - own, 0.0) / total, max(stolen, 0.0) / total


UsageSource = Callable[[], Usage | None]


def own_time() -> float:
    """Processor time of this process and of those that it waited for, in seconds."""
    return sum(os.times()[:4])


def usage(own: Callable[[], float] = own_time, path: Path = Path("/proc/stat")) -> Usage | None:
    """The counts of Linux; None elsewhere. `own` is called in any case, because ranks may add up theirs in it."""
    used = own()
    try:
        ticks = [int(cell) for cell in path.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    if len(ticks) < 8:
        return None
    user, nice, system, idle, waiting, interrupts, soft_interrupts, stolen = (tick / os.sysconf("SC_CLK_TCK") for tick in ticks)
    busy = user + nice + system + interrupts + soft_interrupts
    return Usage(busy + idle + waiting + stolen, idle + waiting, stolen, used)


def load_per_core() -> float | None:
    """The load average of the last minute per core; None if the system has none."""
    try:
        return os.getloadavg()[0] / num_cores()
    except (OSError, AttributeError):
        return None


class LoadMeter:
    """Divides a run into stretches and keeps the one in which others used most."""

    def __init__(self, source: UsageSource = usage, before: Callable[[], float | None] = load_per_core) -> None:
        """The load before the run is read at once."""
        self.source, self.before = source, before()
        self.start: Usage | None = None
        self.found: list[tuple[float, float]] = []
        """The shares of others and of stolen time in every stretch."""

    def sample(self) -> MachineLoad:
        """Ends a stretch if it is long enough, and returns what is known so far; the first call begins the first one."""
        now = self.source()
        if self.start is None or now is None:
            self.start = now
        elif now.total - self.start.total >= SHORTEST_S:
            self.found.append(now.shares_since(self.start))
            self.start = now
        others, stolen = max(self.found, key=sum, default=(None, None))
        return MachineLoad(before=self.before, others=others, stolen=stolen)
