"""The answer of the characterization of a model: what its MoE layers cost, and why."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.recipe.variant import DENSE
from moeprof.records.run.run import Run
from moeprof.records.units import format_significant
from moeprof.reporters.cells import Write, percent, plural, rate, times
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.answers.numbers import (
    DOING,
    MOST,
    balance_number,
    idle_number,
    measured,
    named,
    phases_of,
    timed,
    traffic_numbers,
)
from moeprof.reporters.names import name_of


def answer(run: Run, metrics: RunMetrics) -> RunAnswer:
    """The time beside that of the dense twin if it was measured, otherwise the throughput; then waste, idle experts and balance."""
    phases = phases_of(run, metrics)
    numbers = list(key_numbers(run, metrics, phases))[:MOST]
    changes = [*padding_change(metrics, phases), *tokens_change(run, metrics, phases)]
    return RunAnswer(sentence(run, metrics, phases), numbers, light_of(run), changes)


def sentence(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> str:
    """What the MoE layers cost in every phase."""
    subject = f"{run.record.name} under {name_of(metrics.baseline)}"
    if slower := by_phase(metrics, phases, "slowdown_vs_dense", times):
        flops = flops_ratio(metrics)
        explained = f"; its FLOPs explain {times(flops)}" if flops else ""
        return f"{subject} takes {slower} the time of its dense twin{explained}."
    speeds = by_phase(metrics, phases, "throughput", lambda value: f"{rate(value)} tokens/s")
    return f"{subject} reaches {speeds}." if speeds else f"{subject}: no phase was timed."


def by_phase(metrics: RunMetrics, phases: Sequence[str], metric: str, write: Write) -> str:
    """`12.3x (scoring) and 4.1x (decoding)`; empty if no phase has the metric."""
    found = ((phase, metrics.or_none(metric, phase=phase, variant=metrics.baseline)) for phase in phases)
    return " and ".join(f"{write(value)} ({DOING[phase]})" for phase, value in found if value is not None)


def flops_ratio(metrics: RunMetrics) -> RecordedNumber | None:
    """FLOPs of a token over those in the dense twin."""
    ours, twins = (metrics.or_none("flops_per_token", variant=label) for label in (metrics.baseline, DENSE.label))
    return ours / twins if ours is not None and twins else None


def key_numbers(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> Iterator[KeyNumber]:
    """In the order of importance: the first ones fit."""
    flops = flops_ratio(metrics)
    for phase in phases:
        here = metrics.at(phase=phase, variant=metrics.baseline)
        bound = named("FLOPs", flops)
        found = list(measured(here, "slowdown_vs_dense", f"MoE / dense time, {DOING[phase]}", times, bound=bound))
        yield from found or timed(here, "throughput", f"tokens/s, {DOING[phase]}", rate)
    for phase in phases:
        yield from traffic_numbers(metrics, phase, metrics.baseline)
    for phase in phases[:1]:
        here = metrics.at(phase=phase, variant=metrics.baseline)
        name = f"slots computed / required, {DOING[phase]}"
        yield from measured(here, "waste_factor", name, times, bound=("no padding", 1.0))
    for phase in reversed(phases):
        yield from idle_number(metrics.at(phase=phase, variant=metrics.baseline), phase, run.record.ran.model.experts)
    yield from balance_number(metrics, phases)


def padding_change(metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """Another dispatch, if the one that ran computes padding."""
    found = ((metrics.or_none("waste_factor", phase=phase, variant=metrics.baseline) or 0, phase) for phase in phases)
    waste, phase = max(found, default=(0, ""))
    if waste > 1:
        padding = f"{times(waste)} padding ({DOING[phase]})"
        yield f"Another dispatch: `moeprof optimize --dynamic-gating` measures the model without its {padding}."


def tokens_change(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """More tokens per step, if a phase has too few to use all experts."""
    experts, top_k = run.record.ran.model.experts, run.record.ran.gating.top_k
    for phase in phases:
        active, tokens = map(metrics.at(phase=phase, variant=metrics.baseline).or_none, ("active_bound", "step_tokens"))
        if active is not None and tokens is not None and active < experts:
            step = f"{format_significant(tokens)} {plural(round(tokens), 'token', 'tokens')} x top-{top_k}"
            yield f"A larger batch: with {step}, at least {percent(1 - active / experts)} of the experts must be idle when {DOING[phase]}."
