"""The answer of a recording: what was recorded, where it is, how the experts were used, and which commands go on from it."""

import shlex
from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.reporters.cells import plural
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.answers.numbers import DOING, MOST, balance_number, idle_number, measured, phases_of


def answer(run: Run, metrics: RunMetrics) -> RunAnswer:
    """Nothing was timed: the loads of the experts are what a recording says."""
    phases = phases_of(run, metrics)
    numbers = list(key_numbers(run, metrics, phases))[:MOST]
    return RunAnswer(sentence(run, metrics, phases), numbers, light_of(run), [], list(commands(run)))


def sentence(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> str:
    """`Recorded 1 scoring step (4 tokens) and 7 decoding steps (7 tokens) of mine: top-2 of 16 experts in 4 MoE layers.`"""
    found = [steps_words(metrics, phase) for phase in phases]
    if not found:
        return f"{run.record.name}: nothing was recorded."
    layers = len(dict.fromkeys(layer for phase in phases for layer in metrics.layers(phase)))
    model, top_k = run.record.ran.model, run.record.ran.gating.top_k
    return (
        f"Recorded {' and '.join(found)} of {run.record.name}: top-{top_k} of {model.experts} experts in {layers} "
        f"{plural(layers, 'MoE layer', 'MoE layers')}."
    )


def steps_words(metrics: RunMetrics, phase: str) -> str:
    """`7 decoding steps (7 tokens)`."""
    steps, tokens = map(metrics.at(phase=phase, variant=metrics.baseline).or_none, ("steps", "step_tokens"))
    number, all_tokens = round(steps or 0), round((steps or 0) * (tokens or 0))
    words = f"{number:,} {DOING[phase]} {plural(number, 'step', 'steps')}"
    return f"{words} ({all_tokens:,} {plural(all_tokens, 'token', 'tokens')})"


def key_numbers(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> Iterator[KeyNumber]:
    """How evenly the experts were used, most important first."""
    yield from balance_number(metrics, phases)
    experts = run.record.ran.model.experts
    for phase in reversed(phases):
        here, of_all = metrics.at(phase=phase, variant=metrics.baseline), experts * len(metrics.layers(phase))
        yield from idle_number(here, phase, experts)
        yield from measured(
            here, "dead_experts", f"experts never used, {DOING[phase]}", "{:,.0f}".format, remark=f"of {of_all:,}"
        )


def commands(run: Run) -> Iterator[str]:
    """What to ask next of the recorded trace."""
    path = shlex.quote(str(run.path))
    yield f"Hot experts and locality: `moeprof characterize {path}`"
    yield f"Cache slots, eviction policy and placement: `moeprof replay {path}`"
