"""What came of an optimization, in words: speed, memory, outputs, and what is in the way now."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import bottleneck
from moeprof.records.recipe.variant import baselines as known_baselines
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent, times
from moeprof.reporters.documents.summary import MOST, VERBS, traffic_line, trust_line
from moeprof.reporters.names import name_of
from moeprof.reporters.sections.buffers import buffered_variants
from moeprof.reporters.sections.contest import baseline_of, baselines, batch_cell, max_batch_cell, variants_of
from moeprof.reporters.sections.placement import placement_line


def verdict(run: Run, metrics: RunMetrics) -> list[str]:
    """How fast every optimization is in every phase, and what else there is to say of the last one; at most ten lines."""
    optimizations = [label for label in variants_of(run) if label not in known_baselines()]
    last, lines = variants_of(run)[-1], []
    phases: list[str] = [phase for phase in run.record.ran.phases if phase in metrics.phases]
    for phase in phases:
        lines += [
            *(line for label in optimizations or [last] for line in speed_line(run, metrics, phase, label)),
            *buffer_line(run, metrics, phase),
            *memory_line(run, metrics, phase, last),
            *outputs_line(run, metrics, phase, last),
            *placement_line(run, metrics, phase, last),
        ]
    lines += (line for phase in phases for line in bottleneck_line(run, metrics, phase, last))
    lines += traffic_line(run, metrics, phases, last)
    doubts = list(trust_line(run))
    return [*lines[: MOST - len(doubts)], *doubts]


def speed_line(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[str]:
    """Both speed-ups, apart."""
    against, *others = baselines(run, metrics, phase) or [""]
    if not against:
        if metrics.or_none("output_tokens_differing", phase=phase, variant=variant):
            yield f"{VERBS[phase]}: outputs differ, so no speed-up is told."
        return
    size = run.record.ran.load.batch_size
    best = metrics.or_none("speedup_max_throughput", phase=phase, variant=variant, category=against)
    equal = metrics.or_none("speedup_equal_batch", phase=phase, variant=variant, category=against)
    told = []
    if best is not None:
        batches = [batch_cell(metrics.or_none("best_batch", phase=phase, variant=one)) for one in (variant, against)]
        speed = judged(best, between(metrics, "speedup_max_throughput", phase, variant, against))
        told.append(
            f"at {speed} the speed of {name_of(against)}, each at its own best batch ({batches[0]} against {batches[1]})"
        )
    if equal is not None:
        speed = judged(equal, between(metrics, "speedup_equal_batch", phase, variant, against))
        told.append(f"at {speed}{'' if told else f' the speed of {name_of(against)}'} where both have batch {size}")
    order = variants_of(run)
    for other in [one for one in others if order.index(one) < order.index(variant)]:
        metric = "speedup_max_throughput" if best is not None else "speedup_equal_batch"
        ratio = metrics.or_none(metric, phase=phase, variant=variant, category=other)
        speed = "" if ratio is None else judged(ratio, between(metrics, metric, phase, variant, other))
        told += [f"at {speed} the speed of {name_of(other)}"] if speed else []
    if told:
        yield f"{VERBS[phase]}: {name_of(variant)} runs {', '.join(told)}."


def between(metrics: RunMetrics, metric: str, phase: str, variant: str, against: str) -> tuple[float, float] | None:
    """The 95% interval of a speed-up."""
    low, high = (metrics.or_none(f"{metric}_{end}", phase=phase, variant=variant, category=against) for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def judged(ratio: float, interval: tuple[float, float] | None) -> str:
    """The speed-up with its interval, and what may not be read out of it."""
    unsure = interval is not None and interval[0] <= 1 <= interval[1]
    shown = "" if interval is None else f" [{times(interval[0])} to {times(interval[1])}]"
    return f"{times(ratio)}{shown}{' (no difference that the rounds can show)' if unsure else ''}"


def memory_line(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[str]:
    """Peaks at the same batch, and the largest batch that fits."""
    baseline = next(iter(baselines(run, metrics, phase)), baseline_of(run))
    before, after = (metrics.or_none("memory_total_peak", phase=phase, variant=one) for one in (baseline, variant))
    moving, moves = (metrics.or_none("memory_dynamic_peak", phase=phase, variant=one) for one in (baseline, variant))
    if before is None or after is None or not moving or moves is None:
        return
    sentence = (
        f"Memory ({phase}, batch {run.record.ran.load.batch_size}): {format_bytes(after)} at the peak instead of "
        f"{format_bytes(before)}; what is not weights: {format_bytes(moves)} instead of {format_bytes(moving)} "
        f"({moves / moving - 1:+.1%})"
    )
    budget = metrics.or_none("memory_budget", phase=phase)
    if budget is not None and metrics.or_none("max_batch", phase=phase, variant=variant) is not None:
        sizes = [max_batch_cell(run, metrics, phase, one) for one in (variant, baseline)]
        sentence += f"; {format_bytes(budget)} hold a batch of {sizes[0]} instead of {sizes[1]}"
    yield f"{sentence}."


def outputs_line(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[str]:
    """Whether both compute the same, and how well."""
    compared, lost, differing, flips = (
        metrics.or_none(metric, phase=phase, variant=variant)
        for metric in ("output_tokens_compared", "output_tokens_lost", "output_tokens_differing", "routing_flips")
    )
    if compared is None or lost is None or differing is None or flips is None:
        return
    if not compared and not differing:
        yield f"Outputs ({phase}): equal layer by layer; end to end every token sees one that lost an expert, or a near-tie."
        return
    same = "equal on all" if not differing else f"DIFFERENT on {differing:,.0f} of"
    left_out = f" ({lost:,.0f} left out: they see a token that lost an expert, or a near-tie)" if lost else ""
    turned = f"; {flips:,.0f} near-ties turned" if flips else ""
    how_good = quality(run, metrics, phase, variant)
    yield f"Outputs ({phase}): {same} {compared:,.0f} tokens compared{left_out}{turned}{how_good}."


def quality(run: Run, metrics: RunMetrics, phase: str, variant: str) -> str:
    """`; chrF 97.1 instead of 97.1` where it was measured."""
    for metric, title in (("perplexity", "perplexity"), ("chrf", "chrF")):
        ours, theirs = (metrics.or_none(metric, phase=phase, variant=one) for one in (variant, baseline_of(run)))
        if ours is not None and theirs is not None:
            return f"; {title} {ours:.4g} instead of {theirs:.4g}"
    return ""


def bottleneck_line(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[str]:
    """What dominates the step now."""
    found = bottleneck(metrics, phase, variant)
    if found is not None:
        yield f"Now ({phase}): {found.sentence}"


def buffer_line(run: Run, metrics: RunMetrics, phase: str) -> Iterator[str]:
    """What the last buffered variant misses, and what that costs."""
    before, variant = [*["", ""], *buffered_variants(run, metrics, phase)][-2:]
    missed, saved = metrics.or_none("miss_rate", phase=phase, variant=variant), metrics.or_none("memory_saved", variant=variant)
    stall, step = (metrics.or_none(metric, phase=phase, variant=variant) for metric in ("stall_time", "step_latency"))
    if missed is None or saved is None:
        return
    cost = f"; layers stand still for {duration(stall)} of a step of {duration(step)}" if stall is not None and step else ""
    hidden = metrics.or_none("hidden_fraction", phase=phase, variant=variant)
    behind = f", {percent(hidden)} of what could be hidden is" if hidden is not None else ""
    others = metrics.or_none("miss_rate", phase=phase, variant=before)
    instead = f" instead of {percent(others)} with {name_of(before)}" if others is not None else ""
    misses = f"{percent(missed)} of accesses miss{instead}"
    yield f"Buffering ({phase}): {format_bytes(saved)} of experts less on each rank, {misses}{cost}{behind}."
