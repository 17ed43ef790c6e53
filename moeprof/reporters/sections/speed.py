"""How fast, beside the dense twin, and where a step's time goes."""

from collections.abc import Iterable, Iterator, Mapping

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import bottleneck
from moeprof.records.regions import REGIONS
from moeprof.records.run.run import Run
from moeprof.records.units import format_duration
from moeprof.reporters.cells import cell, percent, rate, times
from moeprof.reporters.documents.document import Block, Details, Heading, Paragraph, Stacked, Table
from moeprof.reporters.sections.tables import scope_name, scopes
from moeprof.reporters.shading import letters

VARIANTS = {"static": "MoE", "dense": "dense"}
"""The contenders of a characterization, as a column calls them."""


def speed_table(metrics: RunMetrics, phase: str) -> Table:
    """Throughput and latency of both."""
    rows = []
    for domain in scopes(metrics, phase):
        row = [scope_name(domain)]
        for variant in VARIANTS:
            row.append(cell(metrics.or_none("throughput", phase=phase, domain=domain, variant=variant), rate))
            row.append(cell(metrics.or_none("step_latency", phase=phase, domain=domain, variant=variant), format_duration))
        rows.append([*row, cell(metrics.or_none("slowdown_vs_dense", phase=phase, domain=domain, variant="static"), times)])
    columns = ["domain", "MoE tokens/s", "MoE step", "dense tokens/s", "dense step", "MoE/dense time"]
    return Table(
        columns, rows, caption="Speed: medians over rounds; MoE is static gating, dense the twin with every FFN dense."
    )


def breakdown_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Regions as stacked bars and as a table, what dominates, and every layer for who wants it."""
    yield Heading("Where the time goes", 3)
    regions = regions_of(metrics, phase, VARIANTS)
    if not regions:
        yield Paragraph("This run has no pass `breakdown`, so the regions of a step are not known.")
        return
    found = bottleneck(metrics, phase, "static")
    if found:
        yield Paragraph(found.sentence)
    yield stacked_shares(metrics, phase, regions)
    yield region_table(metrics, phase, regions, VARIANTS)
    yield Details("time per layer", [layer_table(metrics, phase, regions)])


def regions_of(metrics: RunMetrics, phase: str, variants: Iterable[str]) -> list[str]:
    """Those in which any of the variants spent time."""
    return [region for region in REGIONS if any(region_time(metrics, phase, variant, region) for variant in variants)]


def region_time(metrics: RunMetrics, phase: str, variant: str, region: str, layer: str = "") -> float | None:
    """Of a step over all domains."""
    return metrics.or_none("region_time", phase=phase, variant=variant, layer=layer, region=region)


def stacked_shares(metrics: RunMetrics, phase: str, regions: list[str]) -> Stacked:
    """One bar per domain under static gating, one for the twin."""
    bars = [(scope_name(domain), "static", domain) for domain in scopes(metrics, phase)]
    bars.append(("dense", "dense", ""))
    fractions = [
        (
            label,
            [
                metrics.or_none("region_share", phase=phase, domain=domain, variant=variant, region=region) or 0.0
                for region in regions
            ],
        )
        for label, variant, domain in bars
    ]
    return share_bars(regions, fractions)


def share_bars(regions: list[str], bars: list[tuple[str, list[float]]]) -> Stacked:
    """Bars of shares under a legend of the regions."""
    legend = ", ".join(f"{letter} {region}" for region, letter in zip(regions, letters(regions), strict=True))
    return Stacked("Share of a step, by region", regions, bars, f"{legend}.")


def region_table(metrics: RunMetrics, phase: str, regions: list[str], variants: Mapping[str, str]) -> Table:
    """Time and share of every region, the variants side by side under the names given."""
    rows = []
    for region in regions:
        row = [region]
        for variant in variants:
            row.append(cell(region_time(metrics, phase, variant, region), format_duration))
            row.append(cell(metrics.or_none("region_share", phase=phase, variant=variant, region=region), percent))
        rows.append(row)
    overhead = metrics.or_none("overhead", phase=phase, variant=next(iter(variants)), category="breakdown")
    cost = f" Looking on made a step take {overhead:.3f} times as long." if overhead else ""
    columns = ["region", *(column for name in variants.values() for column in (name, "share"))]
    return Table(columns, rows, caption=f"Time per step, summed over layers.{cost}")


def layer_table(metrics: RunMetrics, phase: str, regions: list[str]) -> Table:
    """Every layer's regions under static gating."""
    layers = sorted(
        metrics.distinct("layer", "region_time", phase=phase),
        key=lambda name: (name.rpartition(".")[0], int(name.rpartition(".")[2])),
    )
    shown = [region for region in regions if any(region_time(metrics, phase, "static", region, layer) for layer in layers)]
    rows = [
        [layer, *(cell(region_time(metrics, phase, "static", region, layer), format_duration) for region in shown)]
        for layer in layers
    ]
    return Table(["layer", *shown], rows, caption="Static gating, time per step.")
