"""The blocks of a phase in the report on a comparison: the table, curves over the batch, time and memory."""

import math
from collections.abc import Iterator, Sequence
from operator import itemgetter

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import IDLE_GAPS, includes_idle_gaps
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import cell, rate, times
from moeprof.reporters.documents.document import Block, Curves, Details, Heading, Paragraph, Table
from moeprof.reporters.names import name_of
from moeprof.reporters.plot import as_table
from moeprof.reporters.sections.buffers import buffer_blocks
from moeprof.reporters.sections.calls import call_blocks
from moeprof.reporters.sections.decoding import latency_blocks
from moeprof.reporters.sections.memory import category_table
from moeprof.reporters.sections.offloading import offloading_blocks
from moeprof.reporters.sections.placement import placement_blocks
from moeprof.reporters.sections.speed import region_table, regions_of, share_bars
from moeprof.reporters.sections.tables import scope_name, scopes
from moeprof.reporters.sections.traffic import traffic_blocks, traffic_table
from moeprof.reporters.sections.variants import baseline_of, baselines, not_finite, variant_table, variants_of


def phase_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """All blocks of one phase."""
    yield variant_table(run, metrics, phase)
    if len(metrics.domains(phase)) > 1:
        yield Details("throughput per domain", [domain_table(run, metrics, phase)])
    yield from latency_blocks(metrics, phase, {variant: variant for variant in variants_of(run)})
    yield from curve_blocks(run, metrics, phase)
    yield from region_blocks(run, metrics, phase)
    yield from call_blocks(metrics, phase, {variant: variant for variant in variants_of(run)})
    yield from offloading_blocks(run, metrics, phase)
    yield from buffer_blocks(run, metrics, phase)
    yield from placement_blocks(run, metrics, phase)
    yield from rank_blocks(run, metrics, phase)
    if metrics.distinct("category", "memory_at_peak", phase=phase):
        yield Heading("Memory by category", 3)
        yield category_table(metrics, phase, {variant: variant for variant in variants_of(run)})
    if metrics.distinct("layer", "output_tokens_compared", phase=phase):
        yield Details("outputs layer by layer", [layer_table(run, metrics, phase)])


def domain_table(run: Run, metrics: RunMetrics, phase: str) -> Table:
    """Speed of each domain at the recipe's batch."""
    against = baselines(run, metrics, phase)
    rows = [
        [
            scope_name(domain),
            variant,
            cell(metrics.or_none("throughput", phase=phase, domain=domain, variant=variant), rate),
            *(
                cell(metrics.or_none("speedup_equal_batch", phase=phase, domain=domain, variant=variant, category=one), times)
                for one in against
            ),
        ]
        for domain in scopes(metrics, phase)
        for variant in variants_of(run)
        for here in [metrics.at(phase=phase, domain=domain, variant=variant)]
    ]
    columns = ["domain", "variant", "tokens/s", *(f"vs {baseline}" for baseline in against)]
    return Table(columns, rows, labels=2, caption="At the recipe's batch.")


def curve_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Throughput and memory by batch size, of the baseline, the dense twin and the last variant; nothing without a sweep."""
    variants = variants_of(run)
    speeds = {variant: metrics.curve("throughput", "batch", phase=phase, variant=variant) for variant in variants}
    if not any(speeds.values()):
        return
    sizes = {variant: metrics.curve("memory_total_peak", "batch", phase=phase, variant=variant) for variant in variants}
    floor = [str(variant["label"]) for variant in run.record.variants if variant.get("dense")]
    drawn = [variant for variant in variants if variant in (baseline_of(run), variants[-1], *floor)]
    budget = metrics.or_none("memory_budget", phase=phase)

    def plots(shown: Sequence[str]) -> list[Curves]:
        limit = None if budget is None else ("budget", budget)
        return [
            Curves("Throughput", "batch", "tokens/s", [(one, speeds[one]) for one in shown], write_y=rate),
            Curves("Peak memory", "batch", "bytes", [(one, sizes[one]) for one in shown], limit=limit, write_y=format_bytes),
        ]

    yield Heading("Batch sweep", 3)
    yield from plots(drawn)
    if len(drawn) < len(variants):
        yield Details(f"batch sweep of all {len(variants)} variants, {phase}", [as_table(each) for each in plots(variants)])


def region_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Shares and times of the regions of every variant."""
    variants = variants_of(run)
    regions = regions_of(metrics, phase, variants)
    if not regions:
        return
    yield Heading("Where the time goes", 3)
    yield share_bars(
        regions,
        [
            (
                variant,
                [metrics.or_none("region_share", phase=phase, variant=variant, region=region) or 0.0 for region in regions],
            )
            for variant in variants
        ],
    )
    yield region_table(metrics, phase, regions, {variant: variant for variant in variants})
    if includes_idle_gaps(metrics):
        yield Paragraph(IDLE_GAPS)


def rank_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Communication of every variant; nothing if no traffic was measured."""
    variants = [variant for variant in variants_of(run) if metrics.or_none("collectives", phase=phase, variant=variant)]
    if variants:
        yield Heading("Communication between ranks", 3)
        yield traffic_table(metrics, phase, variants)
        for variant in variants:
            yield Details(f"communication under {name_of(variant)}", list(traffic_blocks(run, metrics, phase, variant)))


def layer_table(run: Run, metrics: RunMetrics, phase: str) -> Table:
    """Outputs of every layer on the inputs of the baseline's layer, and which layer differs most."""
    compared = [
        (layer, variant, here)
        for layer in metrics.distinct("layer", "output_tokens_compared", phase=phase)
        for variant in variants_of(run)
        for here in [metrics.at(phase=phase, variant=variant, layer=layer)]
        if here.or_none("output_tokens_compared") is not None
    ]
    rows = [
        [
            layer,
            variant,
            cell(here.or_none("output_tokens_compared"), "{:,.0f}".format),
            cell(here.or_none("output_tokens_differing")),
            cell(here.or_none("output_max_abs_diff")),
        ]
        for layer, variant, here in compared
    ]
    return Table(
        ["layer", "variant", "compared tokens", "differing", "largest difference"],
        rows,
        labels=2,
        caption="Every MoE layer repeated on the inputs of the baseline's layer; tokens with a dropped choice in it are excluded."
        + differing_most(compared),
    )


def differing_most(compared: list[tuple[str, str, RunMetrics]]) -> str:
    """A sentence on the layer whose outputs differ most, under which variant; empty if all are equal to the bit."""
    apart = [
        (math.inf if not_finite(here) else here.or_none("output_max_abs_diff") or 0.0, layer, variant)
        for layer, variant, here in compared
    ]
    largest, layer, variant = max(apart, key=itemgetter(0))
    size = cell(largest) if math.isfinite(largest) else "not finite"
    return f" Layer {layer} differs most, under {variant}: {size}." if largest else ""
