"""The verdict on optimizations: speed, memory, outputs, and the next bottleneck, in at most ten lines."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import bottleneck
from moeprof.records.recipe.variant import baselines as known_baselines
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import MISSING, cell, duration, percent, plural
from moeprof.reporters.documents.answers.numbers import DOING, phases_of
from moeprof.reporters.documents.answers.speed_ups import BEST_BATCHES, SpeedUp, best_batch_doubt, speed_ups
from moeprof.reporters.documents.summary import traffic_line, with_warnings
from moeprof.reporters.names import name_of
from moeprof.reporters.sections.buffers import buffered_variants
from moeprof.reporters.sections.placement import placement_line
from moeprof.reporters.sections.quality import perplexity_cell
from moeprof.reporters.sections.variants import (
    baseline_of,
    baselines,
    batch_cell,
    is_lower_bound,
    not_finite,
    variants_of,
)


def verdict(run: Run, metrics: RunMetrics) -> list[str]:
    """The speed of every optimization in every phase, and details of the last one; at most ten lines."""
    optimizations = [label for label in variants_of(run) if label not in known_baselines()]
    last, lines = variants_of(run)[-1], []
    phases = phases_of(run, metrics)
    for phase in phases:
        lines += [
            *(line for label in optimizations or [last] for line in speed_line(run, metrics, phase, label)),
            *buffer_line(run, metrics, phase),
            *memory_line(run, metrics, phase, last),
            *outputs_line(run, metrics, phase, last),
            *placement_line(run, metrics, phase, last),
        ]
    lines += (line for phase in phases for line in bottleneck_line(metrics, phase, last))
    lines += traffic_line(run, metrics, phases, last)
    return with_warnings(run, lines)


def speed_line(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[str]:
    """Speed-ups at each variant's best batch and at equal batches; at equal batches over earlier baselines too."""
    against, *others = baselines(run, metrics, phase) or [""]
    if not against:
        here = metrics.at(phase=phase, variant=variant)
        if here.or_none("output_tokens_differing"):
            what = "are not finite" if not_finite(here) else "differ"
            yield f"{DOING[phase].capitalize()}: outputs {what}, so no speed-up is reported."
        return
    order, first = variants_of(run), speed_ups(run, metrics, phase, variant)
    parts = [at_batches(metrics, phase, variant, one) for one in first[:1]]
    parts += [f"{one.words} at equal {one.where}" for one in first[1:]]
    earlier = [other for other in others if order.index(other) < order.index(variant)]
    further = (speed_ups(run, metrics, phase, variant, other)[:1] for other in earlier)
    parts += [f"{one.words} as fast as {name_of(one.against)}" for found in further for one in found]
    if doubt := best_batch_doubt(metrics, phase, variant, against):
        parts.append(f"undecided at best batches ({doubt})")
    if parts:
        yield f"{DOING[phase].capitalize()}: {name_of(variant)} is {'; '.join(parts)}."


def at_batches(metrics: RunMetrics, phase: str, variant: str, one: SpeedUp) -> str:
    """`6.33x [6.2x to 6.5x] as fast as static gating, best batches 64 vs 4`, or with the equal batch."""
    if one.where == BEST_BATCHES:
        batches = [batch_cell(metrics.or_none("best_batch", phase=phase, variant=label)) for label in (variant, one.against)]
        return f"{one.words} as fast as {name_of(one.against)}, each at its best batch ({batches[0]} vs {batches[1]})"
    return f"{one.words} as fast as {name_of(one.against)} at {one.where}"


def memory_line(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[str]:
    """Peaks at the same batch, and the largest batch within the budget, before and after."""
    baseline = next(iter(baselines(run, metrics, phase)), baseline_of(run))
    before, after = (metrics.at(phase=phase, variant=one) for one in (baseline, variant))
    totals = [one.or_none("memory_total_peak") for one in (before, after)]
    was, now = (one.or_none("memory_dynamic_peak") for one in (before, after))
    if totals[0] is None or totals[1] is None or not was or now is None:
        return
    sentence = (
        f"Memory ({phase}, batch {run.record.ran.load.batch_size}, {baseline} → {variant}): peak {format_bytes(totals[0])} → "
        f"{format_bytes(totals[1])}; "
        f"activations and buffers {format_bytes(was)} → {format_bytes(now)} ({now / was - 1:+.1%})"
    )
    budget = metrics.or_none("memory_budget", phase=phase)
    if budget is not None and after.or_none("max_batch") is not None:
        sizes = [largest_batch(metrics, phase, one) for one in (baseline, variant)]
        sentence += f"; largest batch within the {format_bytes(budget)} budget: {sizes[0]} → {sizes[1]}"
    yield f"{sentence}."


def largest_batch(metrics: RunMetrics, phase: str, variant: str) -> str:
    """`8`, or `at least 256 (search stopped there)`."""
    found = batch_cell(metrics.or_none("max_batch", phase=phase, variant=variant))
    return f"at least {found} (search stopped there)" if is_lower_bound(metrics, phase, variant) else found


def outputs_line(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[str]:
    """Whether both variants compute the same, and the quality of both."""
    here = metrics.at(phase=phase, variant=variant)
    compared, lost, differing, flips = map(
        here.or_none, ("output_tokens_compared", "output_tokens_lost", "output_tokens_differing", "routing_flips")
    )
    if compared is None or lost is None or differing is None or flips is None:
        return
    if not compared and not differing:
        yield (
            f"Outputs ({phase}): equal layer by layer; end to end nothing is comparable: every token depends on a dropped choice or a "
            "near-tie."
        )
        return
    if variant in run.record.lossy_labels and not not_finite(here):
        yield f"Outputs ({phase}): less precision by choice{quality(run, metrics, phase, variant)}."
        return
    what = "NOT FINITE" if not_finite(here) else "DIFFERENT"
    same = "equal on all" if not differing else f"{what} on {differing:,.0f} of"
    excluded = f" ({lost:,.0f} excluded: they depend on a dropped choice or a near-tie)" if lost else ""
    flipped = f"; {flips:,.0f} {plural(int(flips), 'routing flip', 'routing flips')}" if flips else ""
    yield f"Outputs ({phase}): {same} {compared:,.0f} compared tokens{excluded}{flipped}{quality(run, metrics, phase, variant)}."


def quality(run: Run, metrics: RunMetrics, phase: str, variant: str) -> str:
    """`; chrF 97.1 (baseline 97.1)`, or nothing if quality was not measured."""
    both = [metrics.at(phase=phase, variant=one) for one in (variant, baseline_of(run))]
    for title, write in (("perplexity", perplexity_cell), ("chrF", lambda here, write: cell(here.or_none("chrf"), write))):
        ours, theirs = (write(here, lambda value: f"{value:.4g}") for here in both)
        if MISSING not in (ours, theirs):
            return f"; {title} {ours} (baseline {theirs})"
    return ""


def bottleneck_line(metrics: RunMetrics, phase: str, variant: str) -> Iterator[str]:
    """The region that takes the largest part of a step now."""
    found = bottleneck(metrics, phase, variant)
    if found is not None:
        yield f"Next bottleneck ({phase}): {found.sentence}"


def buffer_line(run: Run, metrics: RunMetrics, phase: str) -> Iterator[str]:
    """Memory, misses and stalls of the last buffered variant."""
    before, variant = [*["", ""], *buffered_variants(run, metrics, phase)][-2:]
    here = metrics.at(phase=phase, variant=variant)
    missed, saved = here.or_none("miss_rate"), metrics.or_none("memory_saved", variant=variant)
    if missed is None or saved is None:
        return
    others = metrics.or_none("miss_rate", phase=phase, variant=before)
    compared = f" ({percent(others)} under {name_of(before)})" if others is not None else ""
    yield (
        f"Buffering ({phase}): saves {format_bytes(saved)} of expert weights per rank; {percent(missed)} of accesses miss{compared}."
        f"{stall_sentences(here)}"
    )


def stall_sentences(here: RunMetrics) -> str:
    """` Each 39.0 ms step waits 2.87 ms for expert loads; ...`, or nothing if stalls were not measured."""
    stall, step, hidden = map(here.or_none, ("stall_time", "step_latency", "hidden_fraction"))
    if stall is None or not step:
        return ""
    part = ""
    if hidden is not None:
        share = f"{percent(hidden)} of the load time that can overlap" if hidden > 0 else "none of the load time"
        part = f"; {share} was hidden behind compute"
    return f" Each {duration(step)} step waits {duration(stall)} for expert loads{part}."
