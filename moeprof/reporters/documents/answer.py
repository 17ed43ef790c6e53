"""The answer of a run, which a terminal shows on one screen and a page shows first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moeprof.reporters.cells import Write

Level = Literal["good", "doubtful", "bad"]


@dataclass(frozen=True)
class KeyNumber:
    """One number that the answer rests on."""

    name: str
    """What it is, with its unit: `decoding: dynamic gating vs static gating`."""
    value: float
    """A `RecordedNumber` from metrics.csv, or a formula over such numbers, so that its rows are known."""
    write: Write
    """Formats the value, the ends of the interval and the bound."""
    low: float | None = None
    high: float | None = None
    """The ends of the 95% interval, if it has one."""
    bound: tuple[str, float] | None = None
    """The floor or ceiling that it cannot pass, with its name."""
    remark: str = ""
    """`no measurable difference`, `1 process per side`; empty if nothing limits it."""


@dataclass(frozen=True)
class Light:
    """Whether the numbers can be relied on, and why."""

    level: Level
    reasons: Sequence[str]
    """The reasons, the most important first: a busy machine, noisy timings, differing outputs, forced routing."""


@dataclass(frozen=True)
class RunAnswer:
    """What a reader needs who reads nothing else."""

    sentence: str
    """The verdict in one sentence."""
    numbers: Sequence[KeyNumber]
    """Four to six."""
    light: Light
    would_change: Sequence[str]
    """What would change the verdict: another batch, phase, size of cache, number of tokens per step."""
    commands: Sequence[str] = ()
    """What can be asked next, each with the command that answers it."""
    compares: bool = False
    """Whether the numbers are of alternatives, which a reader wants to see beside each other: a screen leaves out its bar before them."""
