"""Offloading systems beside each other at equal fast memory: one table per phase."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.model_size import entry_sizes, experts_of
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.precision import PRECISIONS
from moeprof.records.recipe.offloading import PAPER
from moeprof.records.run.replay import DECODE
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import MISSING, cell, duration, percent, rate
from moeprof.reporters.documents.document import Block, Heading, Paragraph, Table
from moeprof.reporters.sections.quality import perplexity_cell
from moeprof.reporters.sections.variants import baseline_of, with_interval

MASSES = (("ug", 1e6), ("mg", 1e3), ("g", 1.0), ("kg", 1e-3))
"""Units of mass with their number per gram, the smallest first."""


def decode_first(phases: Sequence[str]) -> list[str]:
    """The phases of a replay, that of decoding first, because systems are judged by it."""
    return sorted(phases, key=lambda phase: phase != DECODE)


def systems_of(run: Run) -> list[str]:
    """Labels of the variants that keep experts outside fast memory, if one of them is an offloading system; otherwise none."""
    variants = run.record.variants_by_label
    return [label for label, one in variants.items() if one.in_slots] if any(one.system for one in variants.values()) else []


def system_name(run: Run, label: str) -> str:
    """What a user calls a system: its preset with changed settings; `paper` for expert buffering, `resident` for none."""
    variant = run.record.variants_by_label[label]
    return variant.store if variant.system else PAPER if variant.in_slots else "resident"


def offloading_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """The table of a phase; nothing if no system offloads experts in it."""
    systems = [label for label in systems_of(run) if metrics.or_none("throughput", phase=phase, variant=label) is not None]
    if not systems:
        return
    yield Heading("Offloading systems", 3)
    yield system_table(run, metrics, phase, systems)
    yield from (Paragraph(far_memory(run, label)) for label in systems if computes_far(run, label))
    yield from carbon_block(run, metrics, phase, systems)
    front = on_front(metrics, phase, systems)
    yield Paragraph(
        "On the Pareto front of throughput and quality, at equal fast memory, where speeds within each other's intervals are equal: "
        f"{', '.join(system_name(run, one) for one in front)}."
    )


def carbon_block(run: Run, metrics: RunMetrics, phase: str, systems: Sequence[str]) -> Iterator[Block]:
    """Carbon of memory and disk, if it was derived."""
    found = {label: metrics.or_none("carbon", phase=phase, variant=label) for label in (baseline_of(run), *systems)}
    parts = [f"{system_name(run, label)} {mass(float(grams))}" for label, grams in found.items() if grams is not None]
    if parts:
        yield Paragraph(
            f"CO2 of memory and disk per 1,000 tokens, modelled from the measured times with M2Cache's constants: {', '.join(parts)}."
        )


def mass(grams: float) -> str:
    """`3.84 mg`, with a unit in which the number is below 1,000."""
    unit, factor = next(((unit, factor) for unit, factor in MASSES if grams * factor < 1000), MASSES[-1])
    return f"{grams * factor:.3g} {unit}"


def computes_far(run: Run, label: str) -> bool:
    """Whether a second process computes experts."""
    choice = run.record.variants_by_label[label].offloading
    return choice is not None and choice.cold


def far_memory(run: Run, label: str) -> str:
    """How much memory the second process of a system has beside the fast memory that all systems have."""
    recipe = run.record.ran
    sizes, layers = entry_sizes(recipe.model), recipe.buffered_layers(run.record.variants_by_label[label])
    held = format_bytes(sum(sizes[layer] * experts_of(recipe, layer) for layer in layers))
    return (
        f"{system_name(run, label)}: a second process holds every expert in memory of its own, {held} beside the fast memory; it stands "
        "for a device that computes where its memory is."
    )


def system_table(run: Run, metrics: RunMetrics, phase: str, systems: Sequence[str]) -> Table:
    """A row per system, the resident model first."""
    front = on_front(metrics, phase, systems)
    tiers = any(run.record.variants_by_label[label].host_bytes for label in systems)
    columns = [
        "system",
        "tokens/s",
        "stall/step",
        "hits",
        "on demand",
        "ahead",
        *(["moved from"] if tiers else []),
        "skipped",
        "far",
        "quality",
        "same token",
        "front",
    ]
    rows = []
    for label in (baseline_of(run), *systems):
        here = metrics.at(phase=phase, variant=label)
        rows.append(
            [
                system_name(run, label),
                with_interval(here, "throughput", rate),
                cell(here.or_none("stall_time"), duration),
                cell(hits(here), percent),
                loaded(here, "demand_bytes"),
                loaded(here, "prefetch_bytes"),
                *([moved_from(here)] if tiers else []),
                cell(share(here, "skipped_uses"), percent),
                cell(share(here, "far_uses"), percent),
                quality_cell(here),
                cell(here.or_none("token_agreement"), percent),
                "yes" if label in front else "",
            ]
        )
    return Table(
        columns,
        rows,
        caption="All systems have the bytes of the same number of slots; the resident model has every expert in fast memory. Hits, bytes "
        "by precision, and shares of uses that are skipped or computed on the far side: all recorded batches from a cold start. "
        "Quality: perplexity, or chrF. Same token: share of tokens for which the resident model predicts the same next one.",
    )


def hits(here: RunMetrics) -> float | None:
    """The share of uses whose expert was resident or on its way."""
    missed = here.or_none("miss_rate")
    found = here.or_none("unit_hit_rate")
    return found if found is not None or missed is None else 1 - missed


def share(here: RunMetrics, metric: str) -> float | None:
    """The part of all uses that was skipped, or computed on the far side."""
    counts = [here.or_none(name) for name in ("unit_uses", "skipped_uses", "far_uses")]
    mine, uses = here.or_none(metric), sum(count for count in counts if count)
    return None if mine is None or not uses else mine / uses


def loaded(here: RunMetrics, metric: str) -> str:
    """`56.7 MiB`, or by precision: `20.1 MiB high, 4.2 MiB int4`; of expert buffering all bytes are on demand."""
    known = set(here.distinct("category", metric))
    by_precision = {name: here.or_none(metric, category=name) for name in ("high", *PRECISIONS) if name in known}
    parts = [f"{format_bytes(size)} {name}" for name, size in by_precision.items() if size]
    if by_precision:
        return ", ".join(parts) or "0 B"
    return cell(here.or_none("bytes_loaded"), format_bytes) if metric == "demand_bytes" else MISSING


def moved_from(here: RunMetrics) -> str:
    """`20.1 MiB file, 4.2 MiB host`: the bytes that were moved, by the tier that they came from."""
    found = {tier: here.value("ledger_bytes", category=tier) for tier in here.distinct("category", "ledger_bytes") if tier}
    return ", ".join(f"{format_bytes(size)} {tier}" for tier, size in sorted(found.items())) or MISSING


def quality_cell(here: RunMetrics) -> str:
    """The perplexity, or chrF of translations."""
    chrf = here.or_none("chrf")
    return perplexity_cell(here, "{:.4f}".format) if chrf is None else f"{chrf:.2f}"


def quality_of(here: RunMetrics, resident: RunMetrics) -> float | None:
    """A number of which more is better, if quality was measured: chrF, or perplexity with its sign turned.

    What is better than the resident model is better by chance, and counts as equal.
    """
    found, whole = ([one.or_none("chrf"), one.or_none("perplexity")] for one in (here, resident))
    if found[0] is not None:
        return min(found[0], found[0] if whole[0] is None else whole[0])
    if found[1] is not None:
        return -max(found[1], found[1] if whole[1] is None else whole[1])
    return None


def speed_range(here: RunMetrics) -> tuple[float, float] | None:
    """The ends of the 95% interval of the throughput, or twice the throughput without one."""
    speed = here.or_none("throughput")
    low, high = here.or_none("throughput_low"), here.or_none("throughput_high")
    if speed is None:
        return None
    return (float(speed), float(speed)) if low is None or high is None else (float(low), float(high))


def on_front(metrics: RunMetrics, phase: str, systems: Sequence[str]) -> list[str]:
    """Systems that no other one beats: by more speed at no less quality, or by more quality at no less speed.

    Speeds differ if their intervals do not overlap. Without a measure of quality, the agreement with the resident model takes its place.
    """
    points: dict[str, tuple[tuple[float, float], float]] = {}
    for label in systems:
        here = metrics.at(phase=phase, variant=label)
        quality, same = quality_of(here, metrics.at(phase=phase, variant=metrics.baseline)), here.or_none("token_agreement")
        if (speeds := speed_range(here)) is not None:
            points[label] = speeds, float(quality if quality is not None else same if same is not None else 0)
    return [
        label
        for label, mine in points.items()
        if not any(beats(other, mine) for name, other in points.items() if name != label)
    ]


def beats(one: tuple[tuple[float, float], float], other: tuple[tuple[float, float], float]) -> bool:
    """Whether one system, of a range of speeds and a quality, is better than another in one of them and no worse in the other."""
    (low, high), quality = one
    (other_low, other_high), other_quality = other
    faster, slower = low > other_high, high < other_low
    return (faster and quality >= other_quality) or (quality > other_quality and not slower)
