"""The answer of a replay of placements: whether to move or copy experts, and how close to the floor that brings the busiest device."""

from collections.abc import Iterator
from itertools import pairwise

from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement.balance_results import balancer_point
from moeprof.analysis.placement.gain import WORTH, Gain
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.run.run import Run
from moeprof.records.units import format_significant
from moeprof.reporters.cells import duration, interval, percent
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.answers.numbers import MOST, measured, named
from moeprof.reporters.documents.answers.traced import where
from moeprof.reporters.documents.balance import domain_line, flips, floor_sentence
from moeprof.reporters.sections.rebalancing import repeat_answer, step_size
from moeprof.reporters.sections.replicas import replica_answer
from moeprof.reporters.sections.totals import totals_line

Best = tuple[str, Gain]
"""A balancer and its gain."""


def answer(run: Run, results: RunMetrics) -> RunAnswer:
    """The best balancer in the first phase; one without copies if there is one."""
    phase = next(iter(balance_results.phases(results)), "")
    devices = results.record.balanced.focus
    kinds = [balance_results.best(results, phase, devices, copies=copies) for copies in (False, True)]
    best = kinds[0] or kinds[1]
    sizes = list(flips(balance_results.step_sizes(results, phase, copies=not kinds[0])))
    more = [*sizes, *replica_answer(results, phase), *repeat_answer(results, phase), *left_out(results)] if phase else []
    if best is None and phase and balance_results.untested(results, phase):
        found = " ".join([*totals_line(results, phase), *more])
        return RunAnswer(found, [], light_of(run), ["Counts of several steps or domains, or a trace."])
    if best is None and (other_texts := list(domain_line(results, phase))):
        found = " ".join(
            ["No step was left to test a placement on the text that it was made from.", *other_texts, *left_out(results)]
        )
        return RunAnswer(found, [], light_of(run), ["Counts of several steps of each domain, or a trace."])
    if best is None:
        return RunAnswer("No verdict: no step was left to test a placement on.", [], light_of(run), ["A longer trace."])
    numbers = [*key_numbers(results, phase, best), *(copies_number(results, phase, kinds[1]) if kinds[0] else ())][:MOST]
    if balance_results.at_floor(results, phase, devices):
        found = f"Keep contiguous placement {setting(results, phase)}. {floor_sentence(results, phase)}."
        numbers = [*contiguous_number(results, phase), *copies_number(results, phase, kinds[1])]
        return RunAnswer(
            " ".join([found, *more]),
            numbers,
            light_of(run),
            ["Copies of hot experts, or fewer devices.", *size_changes(results, phase, copies=False)],
        )
    light = light_of(run, doubts=list(doubts(best[1])))
    return RunAnswer(" ".join([sentence(results, phase, best), *more]), numbers, light, list(changes(results, phase, best)))


def sentence(results: RunMetrics, phase: str, best: Best) -> str:
    """The verdict on the best balancer."""
    name, gain = best
    devices = results.record.balanced.focus
    busiest = f"the busiest of {devices} devices"
    after, before = (
        balance_results.balancer_value(results, "avg_max_load", phase, one, devices) or 0.0 for one in (name, CONTIGUOUS.name)
    )
    here = setting(results, phase)
    if gain.verdict == "recommended":
        return f"Use {name}: {here}, {busiest} gets {percent(after)} of a step's choices, {percent(before)} under contiguous."
    nothing = f"; no gain shown: {interval(gain)}" if gain.value <= 0 else ""
    if gain.verdict == "not recommended":
        several = len(balance_results.balancers(results, phase, devices)) > 2
        takes = "no balancer takes" if several else f"{name} does not take"
        return f"Keep contiguous placement: {here}, {takes} {WORTH:.0%} of its load from {busiest}{nothing}."
    return (
        f"Undecided: {here}, the test steps do not show whether {name} takes {WORTH:.0%} of its load from {busiest}{nothing}."
    )


def setting(results: RunMetrics, phase: str) -> str:
    """What a verdict is about: `in decode (16 tokens per step)`."""
    size = step_size(results, phase).removeprefix(", ")
    return f"in {where(phase)}" + (f" ({size})" if size else "")


def left_out(results: RunMetrics) -> Iterator[str]:
    """Numbers of devices without contiguous placement, which the verdict cannot be about."""
    balance = results.record.balanced
    if balance.unfilled:
        numbers = " and ".join(map(str, balance.unfilled))
        yield f"Left out: {numbers} devices, over which {balance.trace.num_experts} experts cannot be divided equally."


def doubts(gain: Gain) -> Iterator[str]:
    """A gain that the test steps cannot decide."""
    if gain.verdict == "too little evidence":
        needed = gain.steps_needed
        more = f"; about {needed:,} would decide" if needed else ""
        yield f"{gain.steps:,} test steps do not decide whether the gain exceeds {WORTH:.0%}{more}."


def key_numbers(results: RunMetrics, phase: str, best: Best) -> Iterator[KeyNumber]:
    """Gain, busiest device before and after beside the floor, moved experts, and modelled waiting."""
    name, devices = best[0], results.record.balanced.focus
    here = results.at(phase=phase)
    at, before = (here.at(point=balancer_point(one, devices)) for one in (name, CONTIGUOUS.name))
    if best[1].value > 0:
        bound = named("worth a move from", WORTH)
        yield from measured(at, "load_gain", f"busiest device lowered by {name}", percent, bound=bound)
    floor = here.or_none("avg_max_load_floor", point=balancer_point("", devices))
    bound = named("floor without copies", floor)
    yield from measured(at, "avg_max_load", f"busiest device's share, {name}", percent, bound=bound)
    yield from contiguous_number(results, phase)
    yield from measured(at, "moved_experts", "experts to move, all layers", format_significant)
    waits = before.or_none("virtual_wait_time")
    remark = "modelled" if waits is None else f"modelled; {duration(waits)} contiguous"
    yield from measured(at, "virtual_wait_time", "waiting per step, mean device", duration, remark=remark)


def contiguous_number(results: RunMetrics, phase: str) -> Iterator[KeyNumber]:
    """The busiest device before anything is moved, beside an even share."""
    devices = results.record.balanced.focus
    at = results.at(phase=phase, point=balancer_point(CONTIGUOUS.name, devices))
    even = results.or_none("ideal_load", phase=phase, point=balancer_point("", devices))
    yield from measured(at, "avg_max_load", "busiest device's share, contiguous", percent, bound=named("even", even))


def copies_number(results: RunMetrics, phase: str, best: Best | None) -> Iterator[KeyNumber]:
    """The gain with copies of hot experts."""
    if best:
        at = results.at(phase=phase, point=balancer_point(best[0], results.record.balanced.focus))
        remark = "" if best[1].value > 0 else "no gain shown"
        yield from measured(at, "load_gain", f"busiest device lowered by {best[0]}, with copies", percent, remark=remark)


def changes(results: RunMetrics, phase: str, best: Best) -> Iterator[str]:
    """The share that decides, and `size_changes`."""
    devices = results.record.balanced.focus
    before = balance_results.balancer_value(results, "avg_max_load", phase, CONTIGUOUS.name, devices)
    if before is not None:
        yield f"The threshold: a busiest-device share below {percent(before * (1 - WORTH))}, {WORTH:.0%} better than contiguous."
    yield from size_changes(results, phase, copies=balance_results.best(results, phase, devices, copies=False) is None)


def size_changes(results: RunMetrics, phase: str, *, copies: bool) -> Iterator[str]:
    """Numbers of tokens per step at which the verdict is another; how to compare some, if a step has one token."""
    balance = results.record.balanced
    found = balance_results.step_sizes(results, phase, copies=copies)
    for one, other in pairwise(found):
        if one[2].verdict != other[2].verdict:
            yield f"Tokens per step: {one[2].verdict} at {one[0]:,}, {other[2].verdict} at {other[0]:,}."
    tokens = results.or_none("test_step_tokens", phase=phase)
    if not balance.tokens_per_step and balance.trace.top_k_known and tokens is not None and float(tokens) == 1:
        yield "The step size: `--tokens-per-step 1,4,16,64` compares steps of one token with those of a server."
