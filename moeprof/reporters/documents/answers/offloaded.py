"""The answer of a comparison of offloading systems: which is fastest at equal fast memory, and at what loss."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.reporters.cells import duration, percent, rate, times
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.answers.numbers import DOING, phases_of
from moeprof.reporters.sections.offloading import hits, loaded, on_front, quality_cell, system_name, systems_of
from moeprof.reporters.sections.variants import baseline_of


def answer(run: Run, metrics: RunMetrics) -> RunAnswer:
    """The phase that loads most per step decides which systems are named; the numbers are those of every system in it."""
    systems, phases = systems_of(run), phases_of(run, metrics)
    wrong = list(wrong_outputs(run, metrics, phases, systems))
    sentences = [text for phase in phases for text in fastest(run, metrics, phase, systems)]
    numbers = [number for phase in phases[-1:] for number in numbers_of(run, metrics, phase, systems)]
    light = light_of(run, wrong=wrong, doubts=[note for note in run.record.notes if note.startswith("premise not met")])
    return RunAnswer(
        " ".join(sentences) or "No system was timed.", numbers, light, list(changes(run, metrics, phases, systems))
    )


def fastest(run: Run, metrics: RunMetrics, phase: str, systems: Sequence[str]) -> Iterator[str]:
    """The fastest system of a phase beside the resident model, and the others on the front."""
    here = {label: metrics.at(phase=phase, variant=label) for label in systems}
    speeds = {label: speed for label, at in here.items() if (speed := at.or_none("throughput"))}
    whole = metrics.or_none("throughput", phase=phase, variant=baseline_of(run))
    if not speeds:
        return
    best = max(speeds, key=lambda label: speeds[label])
    slots = run.record.variants_by_label[best].slots
    share = f", {times(speeds[best] / whole)} the resident model" if whole else ""
    others = [system_name(run, one) for one in on_front(metrics, phase, systems) if one != best]
    rest = f"; {', '.join(others)} {'loses' if len(others) == 1 else 'lose'} less quality" if others else ""
    yield (
        f"{DOING[phase].capitalize()} with {slots} slots per layer, {system_name(run, best)} is fastest: "
        f"{rate(speeds[best])} tokens/s{share}{rest}."
    )


def numbers_of(run: Run, metrics: RunMetrics, phase: str, systems: Sequence[str]) -> Iterator[KeyNumber]:
    """Throughput of every system, beside what a user must know to judge it."""
    for label in systems:
        here = metrics.at(phase=phase, variant=label)
        speed, low, high = map(here.or_none, ("throughput", "throughput_low", "throughput_high"))
        if speed is None:
            continue
        stall, found = here.or_none("stall_time"), hits(here)
        parts = [
            f"stall {duration(stall)}" if stall is not None else "",
            f"hits {percent(found)}" if found is not None else "",
            f"loads {loaded(here, 'demand_bytes')}",
            f"quality {quality_cell(here)}",
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
    yield f"The batch ({run.record.ran.load.batch_size}): a larger one uses more experts per step, so that fewer of them are in slots."
