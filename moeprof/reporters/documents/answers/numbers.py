"""Key numbers as rows record them: with their intervals, and with the remark that limits them."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.run.run import Run
from moeprof.reporters.cells import Write, duration, percent, times
from moeprof.reporters.documents.answer import KeyNumber

MOST = 6
"""Key numbers of an answer."""

DOING = {"score": "scoring", "encode": "encoding", "decode": "decoding"}
"""What a model does in each phase."""

NO_INTERVAL = "no interval: fewer than 6 rounds"
NO_DIFFERENCE = "no measurable difference"


def phases_of(run: Run, metrics: RunMetrics) -> list[str]:
    """Phases of a run of a model that have numbers, in order."""
    return [phase for phase in run.record.ran.phases if phase in metrics.phases]


def measured(
    here: RunMetrics, metric: str, name: str, write: Write, *, bound: tuple[str, float] | None = None, remark: str = ""
) -> Iterator[KeyNumber]:
    """The number at the address of `here` with the ends of its interval; nothing if it was not measured."""
    value, low, high = (here.or_none(f"{metric}{end}") for end in ("", "_low", "_high"))
    if value is not None:
        yield KeyNumber(name, value, write, low, high, bound, remark)


def named(name: str, value: float | None) -> tuple[str, float] | None:
    """A bound with its name; None if it was not measured."""
    return None if value is None else (name, value)


def timed(here: RunMetrics, metric: str, name: str, write: Write) -> Iterator[KeyNumber]:
    """A measured number whose interval has to be known: a remark says so if the rounds were too few."""
    remark = "" if here.or_none(f"{metric}_low") is not None else NO_INTERVAL
    yield from measured(here, metric, name, write, remark=remark)


def idle_number(here: RunMetrics, phase: str, experts: int) -> Iterator[KeyNumber]:
    """Idle experts of a step beside the share that must be idle, 1 - min(E, k x tokens) / E."""
    active = here.or_none("active_bound")
    bound = named("at least", None if active is None else 1 - active / experts)
    yield from measured(here, "inactive_fraction", f"idle experts per step, {DOING[phase]}", percent, bound=bound)


def hottest_expert(metrics: RunMetrics, phases: Sequence[str]) -> tuple[RecordedNumber, str, str] | None:
    """The load of the hottest expert relative to the mean of its layer, and the phase and layer where it is largest."""
    found = [
        (value, phase, layer)
        for phase in phases
        for layer in metrics.layers(phase)
        if (value := metrics.or_none("load_max_over_mean", phase=phase, variant=metrics.baseline, layer=layer)) is not None
    ]
    return max(found, default=None)


def balance_number(metrics: RunMetrics, phases: Sequence[str]) -> Iterator[KeyNumber]:
    """The load of the hottest expert of the worst layer and phase, relative to the mean."""
    if found := hottest_expert(metrics, phases):
        value, phase, layer = found
        yield KeyNumber(f"hottest expert / mean load ({phase}, layer {layer})", value, times, bound=("even load", 1.0))


def traffic_numbers(metrics: RunMetrics, phase: str, variant: str) -> Iterator[KeyNumber]:
    """The time in which ranks are blocked by communication."""
    here = metrics.at(phase=phase, variant=variant)
    share = here.or_none("comm_share")
    remark = f"{percent(share)} of the step" if share is not None else ""
    floor = here.or_none("floor_time")
    bound = named("transfer at link speed", floor)
    yield from measured(
        here, "comm_exposed_time", f"exposed communication per step, {DOING[phase]}", duration, bound=bound, remark=remark
    )
