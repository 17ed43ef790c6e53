"""The answer of a comparison of offloading systems: which is fastest at equal fast memory, and at what loss."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.reporters.cells import duration, percent, rate, times
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.answers.numbers import DOING, phases_of
from moeprof.reporters.sections.offloading import hits, speed_range, system_name, systems_of
from moeprof.reporters.sections.variants import baseline_of

LEAST_OVERLAP = 0.5
"""Of consecutive steps: M2Cache's premise. Its text reports about 0.8 for the neurons of dense models."""
MOST_NAMED = 3
"""Systems that the verdict names if they are equally fast."""


def answer(run: Run, metrics: RunMetrics) -> RunAnswer:
    """The fastest system of every phase; the numbers are those of every system in the last one."""
    systems, phases = systems_of(run), phases_of(run, metrics)
    wrong = list(wrong_outputs(run, metrics, phases, systems))
    sentences = [text for phase in phases for text in fastest(run, metrics, phase, systems)]
    numbers = [number for phase in phases[-1:] for number in numbers_of(run, metrics, phase, systems)]
    noted = [note for note in run.record.notes if note.startswith("premise not met")]
    light = light_of(run, wrong=wrong, doubts=[*noted, *premises(run, metrics, phases, systems)])
    changing = list(changes(run, metrics, phases, systems))
    return RunAnswer(sentence(run, systems, sentences), numbers, light, changing, compares=True)


def sentence(run: Run, systems: Sequence[str], sentences: Sequence[str]) -> str:
    """What was found in each phase, after the fast memory that all systems have."""
    if not sentences:
        return "No system was timed."
    first, *others = sentences
    rest = (one[0].upper() + one[1:] for one in others)
    return " ".join([f"With {run.record.variants_by_label[systems[0]].slots} slots per layer, {first}", *rest])


def fastest(run: Run, metrics: RunMetrics, phase: str, systems: Sequence[str]) -> Iterator[str]:
    """The fastest system of a phase beside the resident model and what it loses, or those that are equally fast."""
    ranges = {label: found for label in systems if (found := speed_range(metrics.at(phase=phase, variant=label)))}
    if not ranges:
        return
    here = {label: metrics.at(phase=phase, variant=label) for label in ranges}
    best = max(ranges, key=lambda label: here[label].value("throughput"))
    speed, whole = here[best].value("throughput"), metrics.or_none("throughput", phase=phase, variant=baseline_of(run))
    share = f"{times(speed / whole)} the resident model, " if whole else ""
    level = [system_name(run, label) for label, (_, high) in ranges.items() if high >= ranges[best][0]]
    if len(level) == 1:
        yield f"{DOING[phase]}: {level[0]} is fastest, {rate(speed)} tokens/s ({share}{loss(run, best, here[best])})."
        return
    more = len(level) - MOST_NAMED
    names = f"{', '.join(level[:MOST_NAMED])} and {more} more" if more > 0 else f"{', '.join(level[:-1])} and {level[-1]}"
    compared = f", {times(speed / whole)} the resident model" if whole else ""
    yield f"{DOING[phase]}: {names} are not measurably different, at up to {rate(speed)} tokens/s{compared}."


def loss(run: Run, label: str, here: RunMetrics) -> str:
    """`without loss`, or the share of next tokens that are those of the resident model."""
    same = here.or_none("token_agreement")
    if label not in run.record.lossy_labels:
        return "without loss"
    return "with less precision" if same is None else f"with {percent(same)} of the resident model's next tokens"


def numbers_of(run: Run, metrics: RunMetrics, phase: str, systems: Sequence[str]) -> Iterator[KeyNumber]:
    """Throughput of every system, beside its stall, and its hits or the share of next tokens that are the resident model's."""
    for label in systems:
        here = metrics.at(phase=phase, variant=label)
        speed, low, high = map(here.or_none, ("throughput", "throughput_low", "throughput_high"))
        if speed is None:
            continue
        stall, found, same = here.or_none("stall_time"), hits(here), here.or_none("token_agreement")
        parts = [
            f"{duration(stall)} stall" if stall is not None else "",
            f"{percent(same)} same" if same is not None and label in run.record.lossy_labels else "",
            f"{percent(found)} hits" if found is not None and label not in run.record.lossy_labels else "",
        ]
        remark = ", ".join(filter(None, parts))
        yield KeyNumber(
            f"{system_name(run, label)}, {DOING[phase]}", speed, lambda value: f"{rate(value)} tok/s", low, high, remark=remark
        )


def wrong_outputs(run: Run, metrics: RunMetrics, phases: Sequence[str], systems: Sequence[str]) -> Iterator[str]:
    """Systems that load every expert at the model's own precision and still compute something else."""
    for phase in phases:
        for label in systems:
            differing = metrics.or_none("output_tokens_differing", phase=phase, variant=label)
            if differing and label not in run.record.lossy_labels:
                yield f"Outputs of {system_name(run, label)} ({phase}) differ on {differing:,.0f} tokens."


def premises(run: Run, metrics: RunMetrics, phases: Sequence[str], systems: Sequence[str]) -> Iterator[str]:
    """Systems that replace only what differs between steps, on a model whose steps differ in more than half of their experts."""
    for phase in phases:
        overlap = metrics.or_none("active_overlap", phase=phase, variant=baseline_of(run))
        for label in systems:
            choice = run.record.variants_by_label[label].offloading
            if choice is not None and choice.eviction == "atu" and overlap is not None and overlap < LEAST_OVERLAP:
                yield (
                    f"premise not met, {system_name(run, label)}, {DOING[phase]}: {percent(overlap)} of a step's experts are those of the "
                    f"step before, and replacing only what differs needs at least {percent(LEAST_OVERLAP)}."
                )


def unpaid(run: Run, metrics: RunMetrics, phase: str, label: str, systems: Sequence[str]) -> Iterator[str]:
    """That prefetching does not pay, and why, if `on-demand` is among the systems and this one is not measurably faster."""
    base = next((one for one in systems if system_name(run, one) == "on-demand"), None)
    if base is None:
        return
    without, here = (metrics.at(phase=phase, variant=one) for one in (base, label))
    mine, theirs = speed_range(here), speed_range(without)
    waited, waits, loads = without.or_none("stall_time"), here.or_none("stall_time"), without.or_none("load_time")
    if mine is None or theirs is None or waited is None or waits is None or loads is None or mine[0] > theirs[1]:
        return
    yield (
        f"{system_name(run, label)}, {DOING[phase]}: prefetching does not pay here. On demand, loads take {duration(loads)} per step, and "
        f"a step waits for {duration(waited)} of it, which is all that prefetching could save; with it a step waits for "
        f"{duration(waits)}, and is not measurably faster."
    )


def changes(run: Run, metrics: RunMetrics, phases: Sequence[str], systems: Sequence[str]) -> Iterator[str]:
    """Whether prefetching pays, and the batch, on which hits depend."""
    for label in systems:
        for phase in phases:
            here = metrics.at(phase=phase, variant=label)
            precision, recall = here.or_none("prefetch_precision"), here.or_none("prefetch_recall")
            if precision is not None and recall is not None:
                yield (
                    f"{system_name(run, label)}, {DOING[phase]}: {percent(precision)} of the prefetched experts are used, which are "
                    f"{percent(recall)} of those that a step would have waited for."
                )
                yield from unpaid(run, metrics, phase, label, systems)
    yield f"The batch ({run.record.ran.load.batch_size}): a larger one uses more experts per step, so that fewer of them are in slots."
