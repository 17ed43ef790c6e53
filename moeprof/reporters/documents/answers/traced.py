"""The answer of the characterization of a trace: whether some experts are hot, and whether steps use the same ones again."""

from collections.abc import Iterator, Sequence
from math import log

from moeprof.analysis.routing.hot_set import FEWEST, WORTH, recorded_hot_set
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.point import format_point
from moeprof.records.run.replay import ALL, DECODE
from moeprof.records.run.run import Run
from moeprof.records.units import format_significant
from moeprof.reporters.cells import percent, plural, times
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.answers.numbers import MOST, measured, named
from moeprof.reporters.documents.trace import elsewhere_line

SIZES = (16, 256)
"""Tokens of a step whose distinct experts are key numbers."""


def answer(run: Run, metrics: RunMetrics) -> RunAnswer:
    """About decode, if the trace has it, otherwise about its first phase."""
    phases = phases_of(metrics)
    numbers = [one for phase in phases[:1] for one in key_numbers(metrics, phase)][:MOST]
    light = light_of(run, doubts=[*lost_order(run), *few_tokens(metrics, phases[:1]), *few_sequences(run, metrics)])
    return RunAnswer(sentence(run, metrics, phases), numbers, light, list(changes(metrics, phases)))


def phases_of(metrics: RunMetrics) -> list[str]:
    """Phases that have numbers, decode first."""
    return list(dict.fromkeys(phase for phase in (DECODE, *metrics.phases) if phase in metrics.phases))


def sentence(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> str:
    """Whether there is a hot set; of counts, how uneven the load is, and whether the hot set of one domain serves another."""
    for phase in phases[:1]:
        if found := recorded_hot_set(metrics, phase):
            start = {"yes": "A hot set exists", "no": "There is no hot set"}.get(
                found.answer, "Undecided whether there is a hot set"
            )
            experts = f"{found.size} {plural(found.size, 'expert', 'experts')} per layer"
            return (
                f"{start} in {where(phase)}: the {experts} chosen most in the first half serve {percent(found.share)} of later choices, "
                f"{percent(found.chance)} by chance."
            )
        ratio = metrics.or_none("load_max_over_mean", phase=phase, variant=metrics.baseline)
        if ratio is not None:
            uneven = f"The hottest expert of a layer gets {times(ratio)} the mean load in {where(phase)}"
            other_texts = list(elsewhere_line(metrics, phase))
            return " ".join([f"{uneven}.", *other_texts]) if other_texts else f"{uneven}; whether it stays hot is not known."
    return f"{run.record.name}: the trace has no numbers."


def where(phase: str) -> str:
    """The name of a phase in a sentence: `decode`, `all phases`."""
    return "all phases" if phase == ALL else phase


def key_numbers(metrics: RunMetrics, phase: str) -> Iterator[KeyNumber]:
    """Hot set, locality, distinct experts, balance and experts that are never used."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    if found := recorded_hot_set(metrics, phase):
        at = here.at(point=format_point({"experts": found.size}))
        bound = named("by chance", at.or_none("hot_set_by_chance"))
        name = f"choices served by {found.size} hot {plural(found.size, 'expert', 'experts')}"
        if found.tokens > 1:
            yield from measured(at, "hot_set_share", name, percent, bound=bound)
        else:
            yield KeyNumber(name, found.share, percent, bound=bound, remark="no interval: 1 token")
    bound = named("steps in random order", here.or_none("active_overlap_shuffled"))
    yield from measured(here, "active_overlap", "experts that the step before used too", percent, bound=bound)
    for size in SIZES:
        yield from distinct_number(metrics, phase, size)
    yield from measured(here, "load_max_over_mean", "hottest expert / mean load", times, bound=("even load", 1.0))
    even = ("even load", log(metrics.record.trace.num_experts))
    yield from measured(here, "load_entropy", "entropy of the load, nats", format_significant, bound=even)
    yield from measured(here, "dead_experts", "experts never used, all layers", "{:,.0f}".format)


def distinct_number(metrics: RunMetrics, phase: str, size: int) -> Iterator[KeyNumber]:
    """Distinct experts that a number of consecutive tokens choose, beside the value by chance; expected ones of counts."""
    here = metrics.at(phase=phase, variant=metrics.baseline, point=format_point({"tokens": size}))
    bound = named("by chance", here.or_none("distinct_experts_by_chance"))
    many = metrics.record.trace.counted[1]
    name = f"distinct experts of {size} {many}"
    found = list(measured(here, "distinct_experts", name, format_significant, bound=bound))
    remark = f"expected of {many} in random order"
    yield from found or measured(here, "distinct_experts_shuffled", name, format_significant, bound=bound, remark=remark)


def lost_order(run: Run) -> Iterator[str]:
    """Steps that may be missing or in another order."""
    if doubt := run.record.characterized.order_doubt:
        yield f"The order of steps may be lost: {doubt}."


def few_tokens(metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """A second half that is too short to judge a hot set."""
    for phase in phases:
        found = recorded_hot_set(metrics, phase)
        if found and found.tokens < FEWEST:
            tokens = f"{found.tokens} {plural(found.tokens, 'token', 'tokens')}"
            yield f"The second half of {phase} has {tokens}, fewer than {FEWEST}."


def few_sequences(run: Run, metrics: RunMetrics) -> Iterator[str]:
    """A single sequence, or counts without an order."""
    sequences = [row.value for row in metrics.rows("sequences")]
    if run.record.characterized.counts_only:
        yield "The source has counts only: no number has an interval."
    elif sequences and max(sequences) == 1:
        yield "The trace has one sequence: another text may have other hot experts."


def changes(metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """The limit that decides about a hot set, phases that are answered differently, and what the source does not say."""
    if not metrics.record.trace.top_k_known:
        yield "`--top-k K` states the experts of a token, so that tokens are counted in place of choices."
    found = {phase: one for phase in phases if (one := recorded_hot_set(metrics, phase))}
    for phase, one in list(found.items())[:1]:
        yield f"A hot set needs {percent(WORTH * one.chance)} of the choices ({phase}), twice the value by chance."
    answers = {phase: one.answer for phase, one in found.items()}
    if len(set(answers.values())) > 1:
        yield f"The phase: {', '.join(f'{phase} {said}' for phase, said in answers.items())}."
