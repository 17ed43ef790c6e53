"""The answer of a replay of offloading systems: which would load the fewest bytes on demand."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.recipe.offloading import system_of
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.offloading import least_line, lossless, phases_of, systems_in
from moeprof.reporters.sections.offloading import hits


def answer(run: Run, metrics: RunMetrics) -> RunAnswer:
    """The system that loads least in the first phase, which is decode if the trace has it; a number per system."""
    phases = phases_of(metrics)
    unmet = [f"{note}." for note in run.record.notes if note.startswith("premise not met")]
    light = light_of(run, doubts=[*assumed_bits(run), *unmet])
    if not phases:
        return RunAnswer("No system used an expert.", [], light, [])
    sentences = list(least_line(metrics, phases[0]))
    first = f"With {run.record.offloaded.slots} slots per layer, {sentences[0]}"
    return RunAnswer(
        " ".join([first, *(text[0].upper() + text[1:] for text in sentences[1:])]),
        list(numbers_of(metrics, phases[0])),
        light,
        list(changes(metrics, phases[0])),
        compares=True,
    )


def assumed_bits(run: Run) -> Iterator[str]:
    """That the sizes of packed experts rest on an assumption, if they do."""
    request = run.record.offloaded
    packed = [system for system in request.systems if (choice := system_of(system)) is not None and choice.low]
    if packed and not request.weight_bits_known:
        yield (
            f"The trace does not state how many bits a weight has: bytes of {', '.join(packed)} are those of {request.weight_bits} bits. "
            "State them with --weight-bits."
        )


def numbers_of(metrics: RunMetrics, phase: str) -> Iterator[KeyNumber]:
    """Bytes on demand of every system."""
    for system in systems_in(metrics, phase):
        here = metrics.at(phase=phase, variant=system)
        found, waited = hits(here), here.or_none("demand_time")
        parts = [
            f"{percent(found)} hits" if found is not None else "",
            f"{duration(waited)} per step" if waited is not None else "",
            "" if lossless(system) else "lossy",
        ]
        yield KeyNumber(f"{system}, {phase}", here.value("demand_bytes"), on_demand, remark=", ".join(filter(None, parts)))


def on_demand(num_bytes: float) -> str:
    """`33.0 GiB on demand`."""
    return f"{format_bytes(num_bytes)} on demand"


def changes(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """Quality, times, and memory, which the trace does not have."""
    request = metrics.record.offloaded
    if not all(map(lossless, request.systems)):
        yield "Quality, which a trace cannot say: moeprof optimize --presets runs the model."
    yield "The time of computation, behind which loads can hide: bytes are counted here, and times are modelled."
    yield f"The slots ({request.slots} of {request.trace.num_experts}): --slots."
