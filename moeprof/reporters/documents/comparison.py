"""What a comparison says of each phase: the table, the curves over the batch, where the time and the memory go."""

from collections.abc import Iterator

from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.documents.document import Block, Curves, Details, Heading, Table
from moeprof.reporters.names import name_of
from moeprof.reporters.numbers import Numbers, cell, rate, times
from moeprof.reporters.sections.buffers import buffer_blocks
from moeprof.reporters.sections.contest import baselines, contest_table, curve, variants_of
from moeprof.reporters.sections.memory import category_table
from moeprof.reporters.sections.placement import placement_blocks
from moeprof.reporters.sections.speed import region_table, regions_of, share_bars
from moeprof.reporters.sections.tables import scope_name
from moeprof.reporters.sections.traffic import traffic_blocks, traffic_table


def phase_blocks(run: Run, numbers: Numbers, phase: str) -> Iterator[Block]:
    """Everything that was measured of one phase."""
    yield contest_table(run, numbers, phase)
    if len(numbers.scopes(phase)) > 1:
        yield Details("throughput per domain", [domain_table(run, numbers, phase)])
    yield from curve_blocks(run, numbers, phase)
    yield from region_blocks(run, numbers, phase)
    yield from buffer_blocks(run, numbers, phase)
    yield from placement_blocks(run, numbers, phase)
    yield from rank_blocks(run, numbers, phase)
    if numbers.distinct("category", phase, "memory_at_peak"):
        yield Heading("What the memory is for", 3)
        yield category_table(numbers, phase, {variant: variant for variant in variants_of(run)})
    yield Details("outputs, layer by layer", [layer_table(run, numbers, phase)])


def domain_table(run: Run, numbers: Numbers, phase: str) -> Table:
    """Equal batches, each domain by itself."""
    against = baselines(run, numbers, phase)
    rows = [
        [
            scope_name(domain),
            variant,
            cell(numbers.get("throughput", phase, domain, variant), rate),
            *(cell(numbers.get("speedup_equal_batch", phase, domain, variant, category=one), times) for one in against),
        ]
        for domain in numbers.scopes(phase)
        for variant in variants_of(run)
    ]
    columns = ["domain", "variant", "tokens/s", *(f"over {baseline}" for baseline in against)]
    return Table(columns, rows, labels=2, caption="At the recipe's batch.")


def curve_blocks(run: Run, numbers: Numbers, phase: str) -> Iterator[Block]:
    """Throughput and memory over the batch; nothing without a sweep."""
    variants = variants_of(run)
    speeds = [(variant, curve(run, "throughput", phase, variant)) for variant in variants]
    sizes = [(variant, curve(run, "memory_total_peak", phase, variant)) for variant in variants]
    if not any(points for _, points in speeds):
        return
    yield Heading("Over the batch", 3)
    yield Curves("Throughput", "batch", "tokens/s", speeds, write_y=rate)
    budget = numbers.get("memory_budget", phase, variant="")
    limit = None if budget is None else ("budget", budget)
    yield Curves("Memory at the peak", "batch", "bytes", sizes, limit=limit, write_y=format_bytes)


def region_blocks(run: Run, numbers: Numbers, phase: str) -> Iterator[Block]:
    """Regions side by side."""
    variants = variants_of(run)
    regions = regions_of(numbers, phase, variants)
    if not regions:
        return
    domain = numbers.whole(phase)
    yield Heading("Where the time goes", 3)
    yield share_bars(
        regions,
        [
            (variant, [numbers.get("region_share", phase, domain, variant, region=region) or 0.0 for region in regions])
            for variant in variants
        ],
    )
    yield region_table(numbers, phase, regions, {variant: variant for variant in variants})


def rank_blocks(run: Run, numbers: Numbers, phase: str) -> Iterator[Block]:
    """What ranks send each other, side by side; nothing where there was no traffic."""
    variants = [variant for variant in variants_of(run) if numbers.get("collectives", phase, numbers.whole(phase), variant)]
    if variants:
        yield Heading("What ranks send each other", 3)
        yield traffic_table(numbers, phase, variants)
        for variant in variants:
            yield Details(f"communication under {name_of(variant)}", list(traffic_blocks(run, numbers, phase, variant)))


def layer_table(run: Run, numbers: Numbers, phase: str) -> Table:
    """Each layer on the same inputs as the baseline's."""
    rows = [
        [
            layer,
            variant,
            f"{compared:,.0f}",
            *(cell(numbers.get(metric, phase, variant=variant, layer=layer)) for metric in metrics),
        ]
        for metrics in [("output_tokens_differing", "output_max_abs_diff")]
        for layer in numbers.distinct("layer", phase, "output_tokens_compared")
        for variant in variants_of(run)
        if (compared := numbers.get("output_tokens_compared", phase, variant=variant, layer=layer)) is not None
    ]
    return Table(
        ["layer", "variant", "tokens that lost nothing", "differing", "largest difference"],
        rows,
        labels=2,
        caption="Every MoE layer once more, on the inputs that the baseline's layer had.",
    )
