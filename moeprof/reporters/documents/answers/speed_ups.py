"""Speed-ups as a reader may quote them: with their interval, and without a claim that the rounds cannot carry."""

from collections.abc import Iterator
from dataclasses import dataclass

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.run.run import Run
from moeprof.reporters.cells import times
from moeprof.reporters.documents.answers.numbers import NO_DIFFERENCE, NO_INTERVAL
from moeprof.reporters.sections.variants import baselines


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
    """The speed-up over the first baseline: at the best batches, or at equal batches if those were not measured."""
    return next(speed_ups(run, metrics, phase, variant), None)


def speed_ups(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[SpeedUp]:
    """Both kinds of speed-up over the first baseline, as far as they were measured."""
    against = next(iter(baselines(run, metrics, phase)), "")
    wheres = {"max_throughput": "best batches", "equal_batch": f"batch {run.record.ran.load.batch_size}"}
    found = (speed_up(metrics, phase, variant, against, kind, where) for kind, where in wheres.items())
    yield from (one for one in found if one is not None)
