"""The summary of a characterization: at most ten lines."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.recipe.dispatch import dispatch_of
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes, format_significant
from moeprof.reporters.cells import count, duration, percent, plural, rate, times
from moeprof.reporters.documents.answers.light import forced_doubt, load_doubt, noise_doubt
from moeprof.reporters.documents.answers.numbers import DOING, hottest_expert, phases_of

OUT_OF_DISTRIBUTION = "is out of distribution"
"""In notes of a run on text that its model was not trained for."""

MAX_LINES = 10
"""Lines of a summary or verdict; warnings are never among those that are cut."""


def summary(run: Run, metrics: RunMetrics) -> list[str]:
    """At most ten statements, each with its number."""
    phases = phases_of(run, metrics)
    lines = [
        *model_lines(run, metrics),
        *(line for phase in phases for line in speed_line(metrics, phase)),
        *quality_lines(run, metrics, phases),
        *waste_line(metrics, phases),
        *drop_line(metrics, phases),
        *activity_line(run, metrics, phases),
        *traffic_line(run, metrics, phases, metrics.baseline),
        *balance_line(metrics, phases),
    ]
    return with_warnings(run, lines)


def with_warnings(run: Run, lines: Sequence[str]) -> list[str]:
    """A busy machine, the first lines and all warnings, MAX_LINES together; a line says how many were left out."""
    busy, warnings = list(load_doubt(run.record.machine_load)), list(warning_lines(run))
    room = MAX_LINES - len(warnings) - len(busy)
    if len(lines) > room:
        kept = max(room - 1, 0)
        lines = [
            *lines[:kept],
            f"Not shown here: {len(lines) - kept} further statements; the sections below have their numbers.",
        ]
    return [*busy, *lines, *warnings]


def model_lines(run: Run, metrics: RunMetrics) -> Iterator[str]:
    """Size and arithmetic of the model, compared with its dense twin."""
    model, gating = run.record.ran.model, run.record.ran.gating
    moe, dense = metrics.at(variant=metrics.baseline), metrics.at(variant="dense")
    parameters, twin_parameters = moe.or_none("num_parameters"), dense.or_none("num_parameters")
    experts, size = moe.or_none("expert_parameters"), moe.or_none("memory_static")
    flops, twin_flops = moe.or_none("flops_per_token"), dense.or_none("flops_per_token")
    if not (parameters and experts and size and flops):
        return
    per_rank = " per rank" if run.record.ran.parallel.ranks > 1 else ""
    yield (
        f"Model: {count(parameters)} parameters ({format_bytes(size)}{per_rank}), {percent(experts / parameters)} of them in experts "
        f"({model.experts} per MoE layer, top-{gating.top_k})."
        f"{f' Dense twin: {count(twin_parameters)} parameters.' if twin_parameters else ''}"
    )
    if twin_flops is None:
        yield f"A token takes {format_significant(flops / 1e6)} million FLOPs."
        return
    yield (
        f"The MoE needs {times(flops / twin_flops)} the FLOPs per token of its dense twin; slowdown beyond that is MoE overhead."
    )


def speed_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """Speed of a phase, and the slowdown against the dense twin."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    speed, latency, slowdown = map(here.or_none, ("throughput", "step_latency", "slowdown_vs_dense"))
    if speed and latency:
        compared = f", {times(slowdown)} the time of the dense twin" if slowdown else ""
        yield f"{DOING[phase].capitalize()}: {rate(speed)} tokens/s, {duration(latency)} per step{compared}."


def quality_lines(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """Bits per byte of a language model, chrF of a translation model."""
    for phase in phases:
        bits, chrf = map(metrics.at(phase=phase, variant=metrics.baseline).or_none, ("bits_per_byte", "chrf"))
        if bits is not None:
            yield f"Quality ({phase}): {bits:.3f} bits per byte."
        if chrf is not None:
            yield f"Quality ({phase}): {chrf_words(run, chrf)}."


def chrf_words(run: Run, chrf: float) -> str:
    """The score; of text that the model can only spell, that it says nothing."""
    if any(OUT_OF_DISTRIBUTION in note for note in run.record.notes):
        return f"chrF {chrf:.1f}, which says little: some of the text is out of distribution"
    return f"chrF {chrf:.1f} against the references"


def waste_line(metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """Capacity slots computed per slot required."""
    parts = [f"{times(waste)} {DOING[phase]}" for phase, waste in by_phase(metrics, "waste_factor", phases).items() if waste]
    if parts:
        yield f"Waste (slots computed per slot required, {dispatch_of(metrics.baseline).title}): {', '.join(parts)}."


def drop_line(metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """The share of tokens that exceed the capacity of an expert."""
    drops = by_phase(metrics, "dropped_tokens", phases)
    if any(drops.values()):
        parts = [f"{percent(drop)} {DOING[phase]}" for phase, drop in drops.items()]
        yield f"Dropped tokens (an expert over capacity): {', '.join(parts)}."
    elif drops and dispatch_of(metrics.baseline).capacity == "fraction":
        yield "Dropped tokens: none; no expert exceeded its capacity."


def activity_line(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """Experts without a token in a step, and how many of them are idle because the step has too few tokens."""
    idle = by_phase(metrics, "inactive_fraction", phases)
    if not idle:
        return
    shares = ", ".join(f"{percent(share)} {DOING[phase]}" for phase, share in idle.items())
    yield " ".join([f"Idle experts per step: {shares}.", *idle_bounds(run, metrics, list(idle))])


def idle_bounds(run: Run, metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """For each phase with too few tokens to use all experts, the share that must be idle: 1 - min(E, k x tokens) / E."""
    top_k, experts = run.record.ran.gating.top_k, run.record.ran.model.experts
    for phase in phases:
        bound, tokens = map(metrics.at(phase=phase, variant=metrics.baseline).or_none, ("active_bound", "step_tokens"))
        if bound is not None and tokens is not None and bound < experts:
            yield (
                f"With {format_significant(tokens)} tokens x top-{top_k}, at least {percent(1 - bound / experts)} must be idle "
                f"when {DOING[phase]}."
            )


def by_phase(metrics: RunMetrics, metric: str, phases: Sequence[str]) -> dict[str, float]:
    """A metric of the model as deployed over all domains, for the phases that have it."""
    found = {phase: metrics.or_none(metric, phase=phase, variant=metrics.baseline) for phase in phases}
    return {phase: value for phase, value in found.items() if value is not None}


def balance_line(metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """The layer and phase with the most uneven load."""
    if found := hottest_expert(metrics, phases):
        value, phase, layer = found
        yield f"Load balance: the hottest expert gets {times(value)} the mean load of its layer ({phase}, layer {layer})."


def traffic_line(run: Run, metrics: RunMetrics, phases: Sequence[str], variant: str) -> Iterator[str]:
    """Bytes that cross ranks, and the exposed communication time, per step."""
    parts = []
    for phase in phases:
        here = metrics.at(phase=phase, variant=variant)
        crossing = here.or_none("comm_bytes", category="crossing")
        exposed, share = here.or_none("comm_exposed_time"), here.or_none("comm_share")
        if crossing is not None and exposed is not None:
            of_step = f" ({percent(share)} of it)" if share is not None else ""
            parts.append(f"{format_bytes(crossing)} and {duration(exposed)} exposed per {phase} step{of_step}")
    if parts:
        yield f"Communication between {run.record.ran.parallel.ranks} ranks: {'; '.join(parts)}."


def text_lines(run: Run) -> Iterator[str]:
    """How many sentences were split, and how many were left out, because they are too long."""
    limit, domains = run.record.ran.load.sequence_length - 1, run.record.fitted.values()
    sentences, split, unfinished, left_out = (
        sum(getattr(domain, name) for domain in domains) for name in ("sentences", "split", "unfinished", "left_out")
    )
    if split:
        rest = f" {unfinished} of them did not fit whole into the batches and {plural(unfinished, 'has', 'have')} no chrF."
        yield (
            f"Text: {split} of {sentences} sentences have more than {limit} tokens and were split at sentence or word boundaries."
            f"{rest if unfinished else ''}"
        )
    if left_out:
        longest = max(domain.longest_word for domain in domains)
        yield (
            f"Text: {left_out} of {sentences + left_out} sentences were left out, because a word has more than {limit} tokens; "
            f"--set load.sequence_length={longest + 1} keeps them."
        )


def warning_lines(run: Run) -> Iterator[str]:
    """Reasons to distrust the numbers, beside a busy machine."""
    yield from text_lines(run)
    yield from forced_doubt(run.record)
    yield from noise_doubt(run.record)
