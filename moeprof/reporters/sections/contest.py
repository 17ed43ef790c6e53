"""The table of a comparison: one column per variant, one row per measure."""

from collections.abc import Callable, Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import MISSING, Write, cell, percent, rate, times
from moeprof.reporters.documents.document import Table

Cells = Callable[[str], str]
"""A variant's cell in one row."""


def variants_of(run: Run) -> list[str]:
    """Labels in the order of the report."""
    return [str(variant["label"]) for variant in run.record.variants]


def baseline_of(run: Run) -> str:
    """The variant that outputs were held against: the first one with experts."""
    return next((str(one["label"]) for one in run.record.variants if not one.get("dense")), "static")


def baselines(run: Run, metrics: RunMetrics, phase: str) -> list[str]:
    """Variants that speed-ups were told against, in the order of the report."""
    speedups = ("speedup_equal_batch", "speedup_max_throughput")
    told = {name for metric in speedups for name in metrics.distinct("category", metric, phase=phase)}
    return [variant for variant in variants_of(run) if variant in told]


def contest_table(run: Run, metrics: RunMetrics, phase: str) -> Table:
    """Speed, memory, waste, quality and outputs of every variant."""
    variants = variants_of(run)
    rows = [[title, *(cells(variant) for variant in variants)] for title, cells in measures(run, metrics, phase)]
    told = [row for row in rows if any(value != MISSING for value in row[1:])]
    return Table(
        ["", *variants],
        told,
        caption="Medians over rounds in turns, with the 95% interval of the median. Best batch: the fastest one within the memory "
        "budget. Memory: live tensor bytes at the peak of one batch; weights are static, the rest is dynamic.",
    )


def measures(run: Run, metrics: RunMetrics, phase: str) -> Iterator[tuple[str, Cells]]:
    """Every row's title and cells."""
    size = run.record.ran.load.batch_size

    def plain(metric: str, write: Write) -> Cells:
        return lambda variant: cell(metrics.or_none(metric, phase=phase, variant=variant), write)

    def sure(metric: str, write: Write, category: str = "") -> Cells:
        return lambda variant: with_interval(metrics.at(phase=phase, variant=variant, category=category), metric, write)

    yield f"tokens/s, batch {size}", sure("throughput", rate)
    for against in baselines(run, metrics, phase):
        yield f"over {against}, batch {size}", sure("speedup_equal_batch", times, against)
    yield "tokens/s, best batch", sure("max_throughput", rate)
    for against in baselines(run, metrics, phase):
        yield f"over {against}, best batch", sure("speedup_max_throughput", times, against)
    yield "best batch", plain("best_batch", batch_cell)
    yield "largest batch that fits", lambda variant: max_batch_cell(run, metrics, phase, variant)
    yield f"peak memory, batch {size}", plain("memory_total_peak", format_bytes)
    yield "of it static", lambda variant: cell(metrics.or_none("memory_static", variant=variant), format_bytes)
    yield "of it dynamic", plain("memory_dynamic_peak", format_bytes)
    yield "waste", plain("waste_factor", times)
    yield "tokens that lose an expert", plain("dropped_tokens", percent)
    yield "bits per byte", plain("bits_per_byte", lambda bits: f"{bits:.4f}")
    yield "perplexity", plain("perplexity", lambda perplexity: f"{perplexity:.4f}")
    yield "chrF", plain("chrf", lambda points: f"{points:.2f}")
    yield "same next token", plain("token_agreement", percent)
    yield "outputs equal?", lambda variant: outputs_cell(run, metrics, phase, variant)


def with_interval(metrics: RunMetrics, metric: str, write: Write) -> str:
    """`7,297 [7,287-7,436]`, and `7.12x [6.92-7.18]`: the unit stands once."""
    value, low, high = (metrics.or_none(f"{metric}{end}") for end in ("", "_low", "_high"))
    interval = "" if low is None or high is None else f" [{write(low).rstrip('x')}-{write(high).rstrip('x')}]"
    return cell(value, write) + interval


def batch_cell(batch: float | None) -> str:
    """A batch size."""
    return cell(batch, lambda size: f"{size:,.0f}" if size else "none")


def max_batch_cell(run: Run, metrics: RunMetrics, phase: str, variant: str) -> str:
    """The largest batch that fits; `>= 256` where the search ended before it met one that does not."""
    met = any(not fits for _, fits in metrics.curve("fits", "batch", phase=phase, variant=variant))
    found = batch_cell(metrics.or_none("max_batch", phase=phase, variant=variant))
    return found if met or found == MISSING else f">= {found}"


def outputs_cell(run: Run, metrics: RunMetrics, phase: str, variant: str) -> str:
    """What the comparison with the baseline's outputs said."""
    if variant == baseline_of(run):
        return "reference"
    if variant == "dense":
        return "another model"
    differing, compared = (
        metrics.or_none(f"output_tokens_{name}", phase=phase, variant=variant) for name in ("differing", "compared")
    )
    if differing is None or compared is None:
        return MISSING
    if differing:
        return f"NO: {differing:,.0f} of {compared:,.0f} differ"
    return f"yes, {compared:,.0f} tokens" if compared else "yes, layer by layer"
