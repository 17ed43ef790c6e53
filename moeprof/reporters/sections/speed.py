"""How fast, beside the dense twin, and where a step's time goes."""

from collections.abc import Iterable, Iterator, Mapping

from moeprof.analysis.timing.breakdown import finding
from moeprof.records.regions import REGIONS
from moeprof.records.run.run import Run
from moeprof.records.units import format_duration
from moeprof.reporters.documents.document import Block, Details, Heading, Paragraph, Stacked, Table
from moeprof.reporters.numbers import Numbers, cell, percent, rate, times
from moeprof.reporters.sections.tables import scope_name
from moeprof.reporters.shading import letters

VARIANTS = {"static": "MoE", "dense": "dense"}
"""The contenders of a characterization, as a column calls them."""


def speed_table(numbers: Numbers, phase: str) -> Table:
    """Throughput and latency of both."""
    rows = []
    for domain in numbers.scopes(phase):
        row = [scope_name(domain)]
        for variant in VARIANTS:
            row.append(cell(numbers.get("throughput", phase, domain, variant), rate))
            row.append(cell(numbers.get("step_latency", phase, domain, variant), format_duration))
        rows.append([*row, cell(numbers.get("slowdown_vs_dense", phase, domain), times)])
    columns = ["domain", "MoE tokens/s", "MoE step", "dense tokens/s", "dense step", "MoE/dense time"]
    return Table(
        columns, rows, caption="Speed: medians over rounds; MoE is static gating, dense the twin with every FFN dense."
    )


def breakdown_blocks(run: Run, numbers: Numbers, phase: str) -> Iterator[Block]:
    """Regions as stacked bars and as a table, what dominates, and every layer for who wants it."""
    yield Heading("Where the time goes", 3)
    regions = regions_of(numbers, phase, VARIANTS)
    if not regions:
        yield Paragraph("This run has no pass `breakdown`, so the regions of a step are not known.")
        return
    domain = numbers.whole(phase)
    found = finding(run, phase, domain=domain)
    if found:
        yield Paragraph(found.sentence)
    yield stacked_shares(numbers, phase, regions)
    yield region_table(numbers, phase, regions, VARIANTS)
    yield Details("time per layer", [layer_table(numbers, phase, regions)])


def regions_of(numbers: Numbers, phase: str, variants: Iterable[str]) -> list[str]:
    """Those in which any of the variants spent time."""
    return [region for region in REGIONS if any(region_time(numbers, phase, variant, region) for variant in variants)]


def region_time(numbers: Numbers, phase: str, variant: str, region: str, layer: str = "") -> float | None:
    """Of a step over all domains."""
    return numbers.get("region_time", phase, numbers.whole(phase), variant, layer, region)


def stacked_shares(numbers: Numbers, phase: str, regions: list[str]) -> Stacked:
    """One bar per domain under static gating, one for the twin."""
    bars = [(scope_name(domain), "static", domain) for domain in numbers.scopes(phase)]
    bars.append(("dense", "dense", numbers.whole(phase)))
    fractions = [
        (label, [numbers.get("region_share", phase, domain, variant, region=region) or 0.0 for region in regions])
        for label, variant, domain in bars
    ]
    return share_bars(regions, fractions)


def share_bars(regions: list[str], bars: list[tuple[str, list[float]]]) -> Stacked:
    """Bars of shares under a legend of the regions."""
    legend = ", ".join(f"{letter} {region}" for region, letter in zip(regions, letters(regions), strict=True))
    return Stacked("Share of a step, by region", regions, bars, f"{legend}.")


def region_table(numbers: Numbers, phase: str, regions: list[str], variants: Mapping[str, str]) -> Table:
    """Time and share of every region, the variants side by side under the names given."""
    rows = []
    for region in regions:
        row = [region]
        for variant in variants:
            row.append(cell(region_time(numbers, phase, variant, region), format_duration))
            row.append(cell(numbers.get("region_share", phase, numbers.whole(phase), variant, region=region), percent))
        rows.append(row)
    overhead = numbers.get("overhead", phase, variant=next(iter(variants)), category="breakdown")
    cost = f" Looking on made a step take {overhead:.3f} times as long." if overhead else ""
    columns = ["region", *(column for name in variants.values() for column in (name, "share"))]
    return Table(columns, rows, caption=f"Time per step, summed over layers.{cost}")


def layer_table(numbers: Numbers, phase: str, regions: list[str]) -> Table:
    """Every layer's regions under static gating."""
    layers = sorted(
        numbers.distinct("layer", phase, "region_time"),
        key=lambda name: (name.rpartition(".")[0], int(name.rpartition(".")[2])),
    )
    shown = [region for region in regions if any(region_time(numbers, phase, "static", region, layer) for layer in layers)]
    rows = [
        [layer, *(cell(region_time(numbers, phase, "static", region, layer), format_duration) for region in shown)]
        for layer in layers
    ]
    return Table(["layer", *shown], rows, caption="Static gating, time per step.")
