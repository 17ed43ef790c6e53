"""The table of a comparison of variants: a column per variant, a row per metric."""

from collections.abc import Callable, Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.best_batch import why_undecided
from moeprof.records.marks import keeps_origin
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import MISSING, Write, cell, percent, rate, times
from moeprof.reporters.documents.document import Table
from moeprof.reporters.sections.quality import perplexity_cell

CellOf = Callable[[str], str]
"""Formats the cell of a variant in one row."""


def variants_of(run: Run) -> list[str]:
    """Labels of the variants, in the order of the report."""
    return [str(variant["label"]) for variant in run.record.variants]


def baseline_of(run: Run) -> str:
    """The variant that outputs are compared with: the first one that is not dense."""
    return next((str(one["label"]) for one in run.record.variants if not one.get("dense")), "static")


def baselines(run: Run, metrics: RunMetrics, phase: str) -> list[str]:
    """Baselines of the recorded speed-ups, in the order of the report."""
    speedups = ("speedup_equal_batch", "speedup_max_throughput")
    known = {name for metric in speedups for name in metrics.distinct("category", metric, phase=phase)}
    return [variant for variant in variants_of(run) if variant in known]


def variant_table(run: Run, metrics: RunMetrics, phase: str) -> Table:
    """Speed, memory, waste, quality and outputs of every variant."""
    variants = variants_of(run)
    rows = [[title, *(cells(variant) for variant in variants)] for title, cells in measures(run, metrics, phase)]
    known = [row for row in rows if any(value != MISSING for value in row[1:])]
    return Table(
        ["", *variants],
        known,
        caption="Medians over interleaved rounds, with the 95% interval of the median. Best batch: the fastest batch within the memory "
        "budget. Memory: live tensor bytes at the peak of one batch; weights are static, everything else is dynamic.",
    )


def measures(run: Run, metrics: RunMetrics, phase: str) -> Iterator[tuple[str, CellOf]]:
    """The title of every row, and the function for its cells."""
    size = run.record.ran.load.batch_size

    def plain(metric: str, write: Write) -> CellOf:
        return lambda variant: cell(metrics.or_none(metric, phase=phase, variant=variant), write)

    def sure(metric: str, write: Write, category: str = "") -> CellOf:
        return lambda variant: with_interval(metrics.at(phase=phase, variant=variant, category=category), metric, write)

    yield f"tokens/s, batch {size}", sure("throughput", rate)
    for against in baselines(run, metrics, phase):
        yield f"vs {against}, batch {size}", sure("speedup_equal_batch", times, against)
    yield "tokens/s, best batch", sure("max_throughput", rate)
    for against in baselines(run, metrics, phase):
        yield f"vs {against}, best batch", best_batch_cells(metrics, phase, against)
    yield "best batch", plain("best_batch", batch_cell)
    yield "largest batch that fits", lambda variant: max_batch_cell(metrics, phase, variant)
    yield f"peak memory, batch {size}", plain("memory_total_peak", format_bytes)
    yield "static memory", lambda variant: cell(metrics.or_none("memory_static", variant=variant), format_bytes)
    yield "dynamic memory", plain("memory_dynamic_peak", format_bytes)
    yield "waste factor", plain("waste_factor", times)
    yield "dropped tokens", plain("dropped_tokens", percent)
    yield "bits per byte", plain("bits_per_byte", lambda bits: f"{bits:.4f}")
    yield "perplexity", lambda variant: perplexity_cell(metrics.at(phase=phase, variant=variant), lambda value: f"{value:.4f}")
    yield "chrF", plain("chrf", lambda points: f"{points:.2f}")
    yield "same next token", plain("token_agreement", percent)
    yield "outputs equal?", lambda variant: outputs_cell(run, metrics, phase, variant)


def best_batch_cells(metrics: RunMetrics, phase: str, against: str) -> CellOf:
    """Speed-ups at best batches; `undecided` if one of the two was not found."""

    def write(variant: str) -> str:
        here = metrics.at(phase=phase, variant=variant, category=against)
        found = with_interval(here, "speedup_max_throughput", times)
        doubtful = found != MISSING and any(why_undecided(metrics, phase, one) for one in (variant, against))
        return "undecided" if doubtful else found

    return write


def with_interval(metrics: RunMetrics, metric: str, write: Write) -> str:
    """A value with its 95% interval, the unit only once: `7,297 [7,287-7,436]`, `7.12x [6.92-7.18]`."""
    value, low, high = (metrics.or_none(f"{metric}{end}") for end in ("", "_low", "_high"))
    bare = keeps_origin(lambda number: write(number).rstrip("x"))
    interval = "" if low is None or high is None else f" [{bare(low)}-{bare(high)}]"
    return cell(value, write) + interval


def batch_cell(batch: float | None) -> str:
    """A batch size; `none` if not even one sequence fits."""
    return cell(batch, lambda size: f"{size:,.0f}" if size else "none")


def max_batch_cell(metrics: RunMetrics, phase: str, variant: str) -> str:
    """The largest batch that fits; `>= 256` if it is a lower bound."""
    found = batch_cell(metrics.or_none("max_batch", phase=phase, variant=variant))
    return f">= {found}" if found != MISSING and is_lower_bound(metrics, phase, variant) else found


def is_lower_bound(metrics: RunMetrics, phase: str, variant: str) -> bool:
    """Whether the search for the largest batch stopped before it tried one that does not fit."""
    return all(fits for _, fits in metrics.curve("fits", "batch", phase=phase, variant=variant))


def outputs_cell(run: Run, metrics: RunMetrics, phase: str, variant: str) -> str:
    """The result of the comparison with the baseline's outputs."""
    if variant == baseline_of(run):
        return "reference"
    if variant == "dense":
        return "different model"
    differing, compared = (
        metrics.or_none(f"output_tokens_{name}", phase=phase, variant=variant) for name in ("differing", "compared")
    )
    if differing is None or compared is None:
        return MISSING
    if not_finite(metrics.at(phase=phase, variant=variant)):
        return "NO: not finite"
    if differing and variant in run.record.lossy_labels:
        return "less precision by choice"
    if differing:
        return f"NO: {differing:,.0f} of {compared:,.0f} differ"
    return f"yes, {compared:,.0f} tokens" if compared else "yes, layer by layer"


def not_finite(here: RunMetrics) -> bool:
    """Whether the outputs of a variant or the baseline are not finite: they differ, but by no finite number."""
    differ = here.or_none("output_tokens_compared") and here.or_none("output_tokens_differing")
    return bool(differ) and here.or_none("output_max_abs_diff") is None
