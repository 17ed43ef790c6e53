"""The table of a comparison: one column per variant, one row per measure."""

from collections.abc import Callable, Iterator, Sequence

from moeprof.records.metrics.point import parse_point
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.documents.document import Table
from moeprof.reporters.numbers import MISSING, Numbers, Write, cell, percent, rate, times

Cells = Callable[[str], str]
"""A variant's cell in one row."""


def variants_of(run: Run) -> list[str]:
    """Labels in the order of the report."""
    return [str(variant["label"]) for variant in run.record.variants]


def baseline_of(run: Run) -> str:
    """The variant that outputs were held against: the first one with experts."""
    return next((str(one["label"]) for one in run.record.variants if not one.get("dense")), "static")


def baselines(run: Run, numbers: Numbers, phase: str) -> list[str]:
    """Variants that speed-ups were told against, in the order of the report."""
    metrics = ("speedup_equal_batch", "speedup_max_throughput")
    told = {name for metric in metrics for name in numbers.distinct("category", phase, metric)}
    return [variant for variant in variants_of(run) if variant in told]


def contest_table(run: Run, numbers: Numbers, phase: str) -> Table:
    """Speed, memory, waste, quality and outputs of every variant."""
    variants = variants_of(run)
    rows = [[title, *(cells(variant) for variant in variants)] for title, cells in measures(run, numbers, phase)]
    told = [row for row in rows if any(value != MISSING for value in row[1:])]
    return Table(
        ["", *variants],
        told,
        caption="Medians over rounds in turns, with the 95% interval of the median. Best batch: the fastest one within the memory "
        "budget. Memory: live tensor bytes at the peak of one batch; weights are static, the rest is dynamic.",
    )


def measures(run: Run, numbers: Numbers, phase: str) -> Iterator[tuple[str, Cells]]:
    """Every row's title and cells."""
    domain, size = numbers.whole(phase), run.record.ran.load.batch_size

    def plain(metric: str, write: Write, domain: str = "") -> Cells:
        return lambda variant: cell(numbers.get(metric, phase, domain, variant), write)

    def sure(metric: str, write: Write, domain: str = "", category: str = "") -> Cells:
        return lambda variant: with_interval(numbers, metric, phase, domain, variant, category, write)

    yield f"tokens/s, batch {size}", sure("throughput", rate, domain)
    for against in baselines(run, numbers, phase):
        yield f"over {against}, batch {size}", sure("speedup_equal_batch", times, domain, against)
    yield "tokens/s, best batch", sure("max_throughput", rate)
    for against in baselines(run, numbers, phase):
        yield f"over {against}, best batch", sure("speedup_max_throughput", times, "", against)
    yield "best batch", plain("best_batch", batch_cell)
    yield "largest batch that fits", lambda variant: max_batch_cell(run, numbers, phase, variant)
    yield f"peak memory, batch {size}", plain("memory_total_peak", format_bytes)
    yield "of it static", lambda variant: cell(numbers.get("memory_static", variant=variant), format_bytes)
    yield "of it dynamic", plain("memory_dynamic_peak", format_bytes)
    yield "waste", plain("waste_factor", times, domain)
    yield "tokens that lose an expert", plain("dropped_tokens", percent, domain)
    yield "bits per byte", plain("bits_per_byte", lambda bits: f"{bits:.4f}", domain)
    yield "perplexity", plain("perplexity", lambda perplexity: f"{perplexity:.4f}", domain)
    yield "chrF", plain("chrf", lambda points: f"{points:.2f}", domain)
    yield "same next token", plain("token_agreement", percent)
    yield "outputs equal?", lambda variant: outputs_cell(run, numbers, phase, variant)


def with_interval(numbers: Numbers, metric: str, phase: str, domain: str, variant: str, category: str, write: Write) -> str:
    """`7,297 [7,287-7,436]`, and `7.12x [6.92-7.18]`: the unit stands once."""
    value, low, high = (
        numbers.get(f"{metric}{end}", phase, domain, variant, category=category) for end in ("", "_low", "_high")
    )
    interval = "" if low is None or high is None else f" [{write(low).rstrip('x')}-{write(high).rstrip('x')}]"
    return cell(value, write) + interval


def batch_cell(batch: float | None) -> str:
    """A batch size."""
    return cell(batch, lambda size: f"{size:,.0f}" if size else "none")


def max_batch_cell(run: Run, numbers: Numbers, phase: str, variant: str) -> str:
    """The largest batch that fits; `>= 256` where the search ended before it met one that does not."""
    met = any(not fits for _, fits in curve(run, "fits", phase, variant))
    found = batch_cell(numbers.get("max_batch", phase, variant=variant))
    return found if met or found == MISSING else f">= {found}"


def curve(run: Run, metric: str, phase: str, variant: str, swept: str = "batch") -> Sequence[tuple[int, float]]:
    """A metric over what was swept alone, such as the batches of a sweep, in order; over all layers, domains and ranks."""
    table = run.metrics
    rows = table[(table["metric"] == metric) & (table["phase"] == phase) & (table["variant"] == variant)]
    rows = rows[(rows["layer"] == "") & (rows["domain"] == "") & (rows["rank"] == "")]
    points = [
        (int(size), float(value))
        for point, value in zip(map(parse_point, rows["point"]), rows["value"], strict=True)
        if list(point) == [swept] and (size := point[swept]).isdecimal()
    ]
    return sorted(points)


def outputs_cell(run: Run, numbers: Numbers, phase: str, variant: str) -> str:
    """What the comparison with the baseline's outputs said."""
    if variant == baseline_of(run):
        return "reference"
    if variant == "dense":
        return "another model"
    differing, compared = (numbers.get(f"output_tokens_{name}", phase, variant=variant) for name in ("differing", "compared"))
    if differing is None or compared is None:
        return MISSING
    if differing:
        return f"NO: {differing:,.0f} of {compared:,.0f} differ"
    return f"yes, {compared:,.0f} tokens" if compared else "yes, layer by layer"
