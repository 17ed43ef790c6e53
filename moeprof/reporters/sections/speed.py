"""Speed of the model and its dense twin, and the time of a step by region."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import IDLE_GAPS, bottleneck, includes_idle_gaps
from moeprof.records.recipe.dispatch import dispatch_of
from moeprof.records.recipe.model import ModelSection
from moeprof.records.recipe.variant import DENSE
from moeprof.records.regions import REGIONS
from moeprof.records.units import format_duration
from moeprof.reporters.cells import cell, percent, rate, times
from moeprof.reporters.documents.document import Block, Details, Heading, Paragraph, Stacked, Table
from moeprof.reporters.sections.tables import scope_name, scopes
from moeprof.reporters.shading import letters

COMMUNICATION = {region for region in REGIONS if region.startswith("a2a_")}
"""The regions in which ranks communicate."""


def columns_of(metrics: RunMetrics) -> dict[str, str]:
    """The variants of a characterization with their column titles: the model as deployed, and its dense twin if that ran too."""
    return {metrics.baseline: "MoE"} | ({DENSE.label: DENSE.label} if metrics.has_twin else {})


def how(metrics: RunMetrics) -> str:
    """How the model was executed: `static gating`, or `the model's own backend`."""
    return dispatch_of(metrics.baseline).title


def speed_table(metrics: RunMetrics, phase: str) -> Table:
    """Throughput and step latency of both variants, by domain."""
    rows = []
    for domain in scopes(metrics, phase):
        row = [scope_name(domain)]
        for variant in columns_of(metrics):
            row.append(cell(metrics.or_none("throughput", phase=phase, domain=domain, variant=variant), rate))
            row.append(cell(metrics.or_none("step_latency", phase=phase, domain=domain, variant=variant), format_duration))
        if metrics.has_twin:
            slowdown = metrics.or_none("slowdown_vs_dense", phase=phase, domain=domain, variant=metrics.baseline)
            row.append(cell(slowdown, times))
        rows.append(row)
    columns = [f"{title} {what}" for title in columns_of(metrics).values() for what in ("tokens/s", "step")]
    own = metrics.record.recipe is not None and isinstance(metrics.record.recipe.model, ModelSection)
    twin = ", dense = the twin in which every FFN is dense" if own else ", dense = the model that was named as its twin"
    return Table(
        ["domain", *columns, *(["MoE/dense time"] if metrics.has_twin else [])],
        rows,
        caption=f"Speed, medians over rounds. MoE = {how(metrics)}{twin if metrics.has_twin else ''}.",
    )


def breakdown_blocks(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Regions as bars and as a table, the bottleneck, and details of every layer."""
    yield Heading("Where the time goes", 3)
    regions = regions_of(metrics, phase, columns_of(metrics))
    if not regions:
        yield Paragraph("Not measured: this run has no breakdown pass.")
        return
    found = bottleneck(metrics, phase, metrics.baseline)
    if found:
        yield Paragraph(f"Bottleneck: {found.sentence}")
    if includes_idle_gaps(metrics):
        yield Paragraph(IDLE_GAPS)
    yield stacked_shares(metrics, phase, regions)
    yield region_table(metrics, phase, regions, columns_of(metrics))
    yield Details("time per layer", [layer_table(metrics, phase, regions)])


def regions_of(metrics: RunMetrics, phase: str, variants: Iterable[str]) -> list[str]:
    """Regions in which any of the variants spent time."""
    return [region for region in REGIONS if any(region_time(metrics, phase, variant, region) for variant in variants)]


def region_time(metrics: RunMetrics, phase: str, variant: str, region: str, layer: str = "") -> float | None:
    """Time of a region in a step over all domains, in ns."""
    return metrics.or_none("region_time", phase=phase, variant=variant, layer=layer, region=region)


def stacked_shares(metrics: RunMetrics, phase: str, regions: list[str]) -> Stacked:
    """A bar per domain, and one for the dense twin if it ran too."""
    bars = [(scope_name(domain), metrics.baseline, domain) for domain in scopes(metrics, phase)]
    if metrics.has_twin:
        bars.append((DENSE.label, DENSE.label, ""))
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
    """Stacked bars of region shares, with a legend of the regions' letters."""
    legend = ", ".join(f"{letter} {region}" for region, letter in zip(regions, letters(regions), strict=True))
    return Stacked("Share of step time by region", regions, bars, f"{legend}.")


def region_table(metrics: RunMetrics, phase: str, regions: list[str], variants: Mapping[str, str]) -> Table:
    """Time and share of every region, with two columns per variant; `variants` maps labels to column titles."""
    rows = []
    for region in regions:
        row = [region]
        for variant in variants:
            row.append(cell(region_time(metrics, phase, variant, region), format_duration))
            row.append(cell(metrics.or_none("region_share", phase=phase, variant=variant, region=region), percent))
        rows.append(row)
    overheads = (metrics.or_none("overhead", phase=phase, variant=variant, category="breakdown") for variant in variants)
    known = [overhead for overhead in overheads if overhead is not None]
    columns = ["region", *(column for name in variants.values() for column in (name, "share"))]
    caption = f"Time per step, summed over layers.{remainder_sentence(metrics, phase, regions, variants)}"
    return Table(columns, rows, caption=f"{caption}{overhead_sentence(known)}{other_rounds_sentence(metrics, regions)}")


def remainder_sentence(metrics: RunMetrics, phase: str, regions: Sequence[str], variants: Mapping[str, str]) -> str:
    """What the regions of every variant add up to beside its step: they are medians of other rounds, with timers."""
    parts = []
    for variant, title in variants.items():
        step = metrics.or_none("step_latency", phase=phase, variant=variant)
        whole = sum(region_time(metrics, phase, variant, region) or 0.0 for region in regions)
        if step and whole:
            parts.append(f"{title} {format_duration(whole)} of {format_duration(step)} ({whole / step - 1:+.0%})")
    return f" Sum of the regions, and the step without timers in other rounds: {', '.join(parts)}." if parts else ""


def other_rounds_sentence(metrics: RunMetrics, regions: Sequence[str]) -> str:
    """That communication is timed a second time, if it is; empty otherwise."""
    if not metrics.rows("comm_exposed_time") or not COMMUNICATION & set(regions):
        return ""
    return " Exposed communication is measured in rounds of its own, so it differs from these regions."


def overhead_sentence(overheads: Sequence[float]) -> str:
    """The cost of the region timers, given the ratio of step times with and without them for every variant."""
    if not overheads:
        return ""
    most, bound = max(overheads), " at most" if len(overheads) > 1 else ""
    return f" Instrumentation overhead: {f'{most - 1:+.1%} per step{bound}' if most > 1 else 'not measurable'}."


def layers_in_order(metrics: RunMetrics, phase: str) -> list[str]:
    """Layers with times, `2` before `10`."""
    return sorted(
        metrics.distinct("layer", "region_time", phase=phase),
        key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)],
    )


def layer_table(metrics: RunMetrics, phase: str, regions: list[str]) -> Table:
    """Time of every region in every layer."""
    layers = layers_in_order(metrics, phase)
    shown = [
        region for region in regions if any(region_time(metrics, phase, metrics.baseline, region, layer) for layer in layers)
    ]
    rows = [
        [layer, *(cell(region_time(metrics, phase, metrics.baseline, region, layer), format_duration) for region in shown)]
        for layer in layers
    ]
    return Table(["layer", *shown], rows, caption=f"Time per step, {how(metrics)}.")
