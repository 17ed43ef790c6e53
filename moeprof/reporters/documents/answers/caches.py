"""The answer of a replay of caches: the policy and size to use, and what they cost."""

from collections.abc import Iterator

from moeprof.analysis.caching import replay_results
from moeprof.analysis.caching.advice import LOWER_BOUND, Advice, advise, size_for
from moeprof.analysis.caching.replay_results import policy_point, size_point
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.answers.numbers import measured, named
from moeprof.reporters.documents.replay import best_range, format_rate, num_slots, size_in_words
from moeprof.reporters.sections.caches import size_name


def answer(run: Run, results: RunMetrics) -> RunAnswer:
    """The advice for the first phase; decode, if the trace has it."""
    phases = replay_results.phases(results)
    advice = advise(results, phases[0]) if phases else None
    if advice is None:
        why = "every replayed policy needs future accesses" if phases else "the replay has no numbers"
        return RunAnswer(f"No recommendation: {why}.", [], light_of(run), ["An online policy: --policy."])
    light = light_of(run, doubts=list(doubts(advice)))
    return RunAnswer(sentence(results, advice), list(key_numbers(results, advice)), light, list(changes(results, advice)))


def sentence(results: RunMetrics, advice: Advice) -> str:
    """The recommendation with its miss rate."""
    everything = advice.size == num_slots(results)
    what = "Keep all experts resident" if everything else f"Use {advice.policy} with {size_in_words(results, advice.size)}"
    return f"{what}: {percent(advice.miss_rate)} of accesses miss in {advice.phase}."


def doubts(advice: Advice) -> Iterator[str]:
    """A size that is not the knee of the curve."""
    if not advice.at_knee:
        yield "No knee was found in the miss-rate curve: the size is the largest that was replayed."


def key_numbers(results: RunMetrics, advice: Advice) -> Iterator[KeyNumber]:
    """Misses beside MIN and the compulsory ones, what other sizes would miss, copy time and memory."""
    here = results.at(phase=advice.phase)
    at = here.at(point=policy_point(results, advice.policy, advice.size))
    least = here.or_none("miss_rate", point=policy_point(results, LOWER_BOUND, advice.size))
    bound = named("MIN (Belady)", least)
    yield from measured(at, "miss_rate", f"miss rate, {advice.policy}, {size_name(results, advice.size)}", percent, bound=bound)
    for size in neighbours(results, advice):
        there = here.at(point=policy_point(results, advice.policy, size))
        yield from measured(there, "miss_rate", f"miss rate with {size_name(results, size)}", percent)
    first, accesses = map(here.or_none, ("compulsory_misses", "expert_accesses"))
    if first is not None and accesses:
        yield KeyNumber("compulsory misses", first / accesses, percent, remark="no cache avoids them")
    overlap = at.or_none("exposed_time")
    remark = f"modelled; {duration(overlap)} exposed" if overlap else "modelled"
    yield from measured(at, "transfer_time", "copies per step", duration, remark=remark)
    saved = results.at(point=size_point(results, advice.size))
    yield from measured(saved, "memory_saved", "expert memory saved", format_bytes, bound=most_saved(results))


def neighbours(results: RunMetrics, advice: Advice) -> list[int]:
    """The replayed sizes nearest to half and double the recommended one."""
    sizes = results.record.replayed.sizes
    found = (min(sizes, key=lambda one: abs(one - factor * advice.size)) for factor in (0.5, 2))
    return [size for size in dict.fromkeys(found) if size != advice.size]


def most_saved(results: RunMetrics) -> tuple[str, float] | None:
    """What the smallest replayed size saves, with its name."""
    smallest = results.record.replayed.sizes[0]
    most = results.or_none("memory_saved", point=size_point(results, smallest))
    return named(f"with {size_name(results, smallest)}", most)


def changes(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """Sizes at which another policy is better, and what halves the cost."""
    if advice.rival and advice.size != num_slots(results):
        yield f"The size: {best_range(results, advice)}"
    spent = replay_results.policy_value(results, "transfer_time", advice.phase, advice.policy, advice.size)
    if spent:
        enough = size_for(results, advice.phase, advice.policy, spent / 2)
        link = f"a {format_rate(2 * results.record.replayed.bandwidth)} link"
        yield f"The cost: {f'{size_name(results, enough)} or ' if enough else ''}{link} would halve it."
