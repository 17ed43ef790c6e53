"""Speed-ups as a reader may quote them: with their interval, and without a claim that the rounds cannot carry."""

from dataclasses import dataclass

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.best_batch import why_undecided
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.run.run import Run
from moeprof.reporters.cells import times
from moeprof.reporters.documents.answers.numbers import NO_DIFFERENCE, NO_INTERVAL
from moeprof.reporters.names import name_of
from moeprof.reporters.sections.variants import baselines

BEST_BATCHES = "best batches"
"""Where a speed-up holds that compares every variant at its own best batch."""


@dataclass(frozen=True)
class SpeedUp:
    """How many times as fast as another variant a variant is."""

    ratio: RecordedNumber
    low: RecordedNumber | None
    high: RecordedNumber | None
    against: str
    where: str
    """`best batches` or `batch 16`."""

    @property
    def differs(self) -> bool:
        """Whether the rounds show a difference."""
        return self.low is None or self.high is None or not self.low <= 1 <= self.high

    @property
    def remark(self) -> str:
        """What limits it; empty if nothing does."""
        return NO_INTERVAL if self.low is None else "" if self.differs else NO_DIFFERENCE

    @property
    def words(self) -> str:
        """`6.33x [6.2x to 6.5x]`, with what limits it in brackets."""
        interval = "" if self.low is None or self.high is None else f" [{times(self.low)} to {times(self.high)}]"
        return f"{times(self.ratio)}{interval}{f' ({self.remark})' if self.remark else ''}"


def speed_up(metrics: RunMetrics, phase: str, variant: str, against: str, kind: str, where: str = "") -> SpeedUp | None:
    """The recorded speed-up of a kind, `max_throughput` or `equal_batch`; None if it was not measured."""
    here = metrics.at(phase=phase, variant=variant, category=against)
    ratio, low, high = (here.or_none(f"speedup_{kind}{end}") for end in ("", "_low", "_high"))
    return None if ratio is None else SpeedUp(ratio, low, high, against, where)


def main_speed_up(run: Run, metrics: RunMetrics, phase: str, variant: str) -> SpeedUp | None:
    """The speed-up over the first baseline: at the best batches, or at equal batches if the best ones are not known."""
    return next(iter(speed_ups(run, metrics, phase, variant)), None)


def speed_ups(run: Run, metrics: RunMetrics, phase: str, variant: str, against: str = "") -> list[SpeedUp]:
    """Both kinds of speed-up over a baseline (the first one), as far as they were measured and may be quoted."""
    against = against or next(iter(baselines(run, metrics, phase)), "")
    wheres = {"equal_batch": f"batch {run.record.ran.load.batch_size}"}
    if not best_batch_doubt(metrics, phase, variant, against):
        wheres = {"max_throughput": BEST_BATCHES} | wheres
    found = (speed_up(metrics, phase, variant, against, kind, where) for kind, where in wheres.items())
    return [one for one in found if one is not None]


def best_batch_doubt(metrics: RunMetrics, phase: str, variant: str, against: str) -> str:
    """Why a speed-up at best batches would be noise, as a clause; empty if it may be quoted, or was not measured."""
    if metrics.or_none("speedup_max_throughput", phase=phase, variant=variant, category=against) is None:
        return ""
    found = {one: why_undecided(metrics, phase, one) for one in (variant, against)}
    return "; ".join(f"{name_of(one)}: {why}" for one, why in found.items() if why)
