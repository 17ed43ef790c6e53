"""The answer of a comparison of variants: whether the last one is faster, at what memory, and with which outputs."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import bottleneck
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import percent, times
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.answers.numbers import DOING, MOST, measured, named, phases_of, traffic_numbers
from moeprof.reporters.documents.answers.speed_ups import SpeedUp, best_batch_doubt, main_speed_up, speed_ups
from moeprof.reporters.names import name_of
from moeprof.reporters.sections.buffers import buffered_variants
from moeprof.reporters.sections.variants import baseline_of, baselines, is_lower_bound, not_finite, variants_of


def answer(run: Run, metrics: RunMetrics) -> RunAnswer:
    """The last variant beside the first baseline of its speed-ups."""
    phases, last = phases_of(run, metrics), variants_of(run)[-1]
    found = {phase: one for phase in phases if (one := main_speed_up(run, metrics, phase, last))}
    numbers = list(key_numbers(run, metrics, phases, last, found))[:MOST]
    light = light_of(run, wrong=list(wrong_outputs(metrics, phases, last)), doubts=list(speed_doubts(metrics, last, found)))
    return RunAnswer(sentence(metrics, phases, last, found), numbers, light, list(changes(run, metrics, phases, last)))


def sentence(metrics: RunMetrics, phases: Sequence[str], variant: str, found: dict[str, SpeedUp]) -> str:
    """The speed-ups of every phase, and whether outputs are equal."""
    name, same = name_of(variant), outputs_words(metrics, phases, variant)
    subject = name[:1].upper() + name[1:]
    if not found:
        return f"{subject}: no speed-up is reported; outputs {same}."
    against = name_of(next(iter(found.values())).against)
    faster = " and ".join(
        f"{times(one.ratio)} ({DOING[phase]}{'' if one.low is not None else ', no interval'})"
        for phase, one in found.items()
        if one.differs
    )
    level = " and ".join(DOING[phase] for phase, one in found.items() if not one.differs)
    if not faster:
        return f"{subject} shows no measurable difference from {against} in {level}; outputs {same}."
    rest = f", with no measurable difference in {level}" if level else ""
    return f"{subject} is {faster} as fast as {against}{rest}; outputs {same}."


def outputs_words(metrics: RunMetrics, phases: Sequence[str], variant: str) -> str:
    """`are equal`, `differ in decoding`, `were not compared`."""
    here = {phase: metrics.at(phase=phase, variant=variant) for phase in phases}
    compared = [phase for phase in phases if here[phase].or_none("output_tokens_differing") is not None]
    if not compared:
        return "were not compared"
    wrong = [phase for phase in compared if here[phase].or_none("output_tokens_differing")]
    if not wrong:
        return "are equal"
    verb = "are not finite" if any(not_finite(here[phase]) for phase in wrong) else "differ"
    return f"{verb} in {' and '.join(DOING[phase] for phase in wrong)}"


def wrong_outputs(metrics: RunMetrics, phases: Sequence[str], variant: str) -> Iterator[str]:
    """Phases in which the outputs are not those of the baseline."""
    for phase in phases:
        differing, compared = (
            metrics.or_none(f"output_tokens_{name}", phase=phase, variant=variant) for name in ("differing", "compared")
        )
        if differing:
            yield f"Outputs ({phase}) differ on {differing:,.0f} of {compared or 0:,.0f} compared tokens."


def speed_doubts(metrics: RunMetrics, variant: str, found: dict[str, SpeedUp]) -> Iterator[str]:
    """Best batches that the search did not find, and speed-ups without an interval."""
    for phase, one in found.items():
        if doubt := best_batch_doubt(metrics, phase, variant, one.against):
            yield f"The best batches ({phase}) are undecided, so no speed-up at them is stated. {doubt[:1].upper()}{doubt[1:]}."
    for phase, one in found.items():
        if one.low is None:
            yield f"The speed-up ({phase}) has no interval: fewer than 6 rounds."


def key_numbers(
    run: Run, metrics: RunMetrics, phases: Sequence[str], variant: str, found: dict[str, SpeedUp]
) -> Iterator[KeyNumber]:
    """In the order of importance: the first ones fit."""
    for phase, one in found.items():
        yield KeyNumber(f"speed-up, {DOING[phase]} ({one.where})", one.ratio, times, one.low, one.high, remark=one.remark)
    for phase in phases:
        yield from buffer_numbers(run, metrics, phase)
        yield from placement_numbers(metrics, phase, variant)
        yield from traffic_numbers(metrics, phase, variant)
    for phase in phases:
        yield from memory_numbers(run, metrics, phase, variant)
    yield from outputs_number(metrics, phases, variant)
    for phase in phases:
        yield from batch_numbers(run, metrics, phase, variant)


def memory_numbers(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[KeyNumber]:
    """The peak of a batch beside the weights, which it cannot go below."""
    against = next(iter(baselines(run, metrics, phase)), baseline_of(run))
    before, weights = (
        metrics.or_none("memory_total_peak", phase=phase, variant=against),
        metrics.or_none("memory_static", variant=variant),
    )
    yield from measured(
        metrics.at(phase=phase, variant=variant),
        "memory_total_peak",
        f"peak memory, {DOING[phase]}, batch {run.record.ran.load.batch_size}",
        format_bytes,
        bound=named("weights", weights),
        remark="" if before is None or against == variant else f"{against}: {format_bytes(before)}",
    )


def outputs_number(metrics: RunMetrics, phases: Sequence[str], variant: str) -> Iterator[KeyNumber]:
    """The share of compared tokens whose outputs are equal, in the phase with the lowest one."""
    here = [(phase, metrics.at(phase=phase, variant=variant)) for phase in phases]
    pairs = [(phase, one.or_none("output_tokens_differing"), one.or_none("output_tokens_compared")) for phase, one in here]
    shares = [
        (1 - differing / compared, phase, compared)
        for phase, differing, compared in pairs
        if differing is not None and compared
    ]
    if shares:
        share, phase, compared = min(shares)
        yield KeyNumber(f"equal outputs, {DOING[phase]}", share, percent, remark=f"of {compared:,.0f} compared tokens")


def batch_numbers(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[KeyNumber]:
    """The largest batch within the memory budget."""
    here = metrics.at(phase=phase, variant=variant)
    remark = "at least: the search stopped there" if is_lower_bound(metrics, phase, variant) else ""
    yield from measured(here, "max_batch", f"largest batch within the budget, {DOING[phase]}", "{:,.0f}".format, remark=remark)


def buffer_numbers(run: Run, metrics: RunMetrics, phase: str) -> Iterator[KeyNumber]:
    """Misses of the last buffered variant, and the time that a step waits for loads."""
    for variant in buffered_variants(run, metrics, phase)[-1:]:
        here = metrics.at(phase=phase, variant=variant)
        accesses, first = here.or_none("expert_accesses"), here.or_none("compulsory_misses")
        bound = ("compulsory", first / accesses) if accesses and first is not None else None
        yield from measured(here, "miss_rate", f"miss rate, {DOING[phase]}", percent, bound=bound)


def placement_numbers(metrics: RunMetrics, phase: str, variant: str) -> Iterator[KeyNumber]:
    """The share of the busiest rank beside the least that a placement can reach."""
    here = metrics.at(phase=phase, variant=variant)
    bound = named("floor without copies", here.or_none("avg_max_load_floor"))
    yield from measured(here, "avg_max_load", f"busiest rank's share, {DOING[phase]}", percent, bound=bound)


def changes(run: Run, metrics: RunMetrics, phases: Sequence[str], variant: str) -> Iterator[str]:
    """The other batch, if both were measured, and the region that limits the next step."""
    size = run.record.ran.load.batch_size
    for phase in phases:
        both = speed_ups(run, metrics, phase, variant)
        if len(both) > 1:
            best, equal = (one.words for one in both)
            yield f"The batch: {best} {DOING[phase]} at each variant's best batch, {equal} at batch {size}."
    found = [(one.share, phase, one) for phase in phases if (one := bottleneck(metrics, phase, variant))]
    if found:
        _, phase, one = max(found, key=lambda entry: entry[0])
        yield f"The next bottleneck ({phase}): {one.sentence}"
