"""Expert buffering: memory saved, cost of misses, a sweep over slots, and which experts were resident when."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.records.traces.expert_loads import ExpertLoads
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import MISSING, Write, cell, count, duration, percent, rate, times
from moeprof.reporters.documents.document import Block, Curves, Details, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.names import name_of

MIB = 2**20
MAX_ROWS, MAX_COLUMNS = 16, 48
"""The size of a residency map; more experts or steps are shown in groups."""


def buffered_variants(run: Run, metrics: RunMetrics, phase: str) -> list[str]:
    """Labels of the variants that loaded experts in a phase."""
    labels = [str(one["label"]) for one in run.record.variants if one.get("slots")]
    return [label for label in labels if metrics.or_none("expert_accesses", phase=phase, variant=label) is not None]


def buffer_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """All blocks of a phase; nothing if no expert was loaded in it."""
    variants = buffered_variants(run, metrics, phase)
    if not variants:
        return
    yield Heading("Expert buffering", 3)
    for variant in variants:
        yield Paragraph(operating_points(run, metrics, phase, variant))
    yield cost_table(metrics, phase, variants)
    for variant in variants:
        yield from sweep_blocks(metrics, phase, variant)
        yield Details(
            f"misses and residency of {name_of(variant)}, layer by layer", list(layer_blocks(run, metrics, phase, variant))
        )


def operating_points(run: Run, metrics: RunMetrics, phase: str, variant: str) -> str:
    """The saving at the chosen slots, and at one slot, which is another operating point."""
    here = metrics.at(variant=variant)
    slots, experts = here.or_none("expert_slots_per_layer"), run.record.ran.model.experts
    local = experts // run.record.ran.parallel.ranks
    one_slot = here.at(point="slots=1")
    rate_there = one_slot.or_none("miss_rate", phase=phase)
    at_rate = f", at a {percent(rate_there)} miss rate" if rate_there is not None else ""
    return (
        f"{name_of(variant).capitalize()}: {cell(slots, count)} slots for a layer's {local} experts"
        f"{' on each rank' if local < experts else ''} save {saved(here)}; {cell(here.or_none('miss_rate', phase=phase), percent)} of "
        f"accesses miss. Upper bound: 1 slot saves {saved(one_slot)}{at_rate}."
    )


def saved(here: RunMetrics) -> str:
    """`2.25 GiB (12.9% of a rank's weights, 1.15x reduction)`."""
    size, share, ratio = map(here.or_none, ("memory_saved", "memory_saved_share", "memory_reduction"))
    return f"{cell(size, format_bytes)} ({cell(share, percent)} of a rank's weights, {cell(ratio, times)} reduction)"


def cost_table(metrics: RunMetrics, phase: str, variants: Sequence[str]) -> Table:
    """Misses counted from a cold start, and times per step in the steady state."""
    rows: dict[str, tuple[str, Write, str]] = {
        "slots per layer": ("expert_slots_per_layer", count, ""),
        "accesses": ("expert_accesses", lambda value: f"{value:,.0f}", phase),
        "misses": ("misses", lambda value: f"{value:,.0f}", phase),
        "miss rate": ("miss_rate", percent, phase),
        "worst layer's miss rate": ("worst_miss_rate", percent, phase),
        "bytes loaded": ("bytes_loaded", format_bytes, phase),
        "bytes loaded per step": ("step_bytes_loaded", format_bytes, phase),
        "step": ("step_latency", duration, phase),
        "load time": ("load_time", duration, phase),
        "load time that can overlap": ("hideable_time", duration, phase),
        "stall": ("stall_time", duration, phase),
        "overlapped share of load time": ("hidden_fraction", lambda share: percent(share) if share > 0 else "none", phase),
        "load bandwidth": ("load_bandwidth", lambda value: f"{format_bytes(value)}/s", phase),
    }
    cells = [
        [title, *(cell(metrics.or_none(metric, phase=where, variant=variant), write) for variant in variants)]
        for title, (metric, write, where) in rows.items()
    ]
    known = [row for row in cells if any(text != MISSING for text in row[1:])]
    caption = (
        "Misses and bytes of all recorded batches, from a cold start. Times per step: medians over timed rounds, means over ranks. Load "
        "time can overlap with other work of the layer after its experts are known; the overlapped share is the "
        "part of that time that caused no stall."
    )
    return Table(["", *variants], known, caption=caption)


def sweep_blocks(metrics: RunMetrics, phase: str, variant: str) -> Iterator[Block]:
    """Every measured number of slots; nothing without --sweep-slots."""
    latencies = dict(metrics.curve("step_latency", "slots", phase=phase, variant=variant))
    if not latencies:
        return
    columns: dict[str, tuple[str, str, Write]] = {
        "weights": ("memory_static", "", format_bytes),
        "saved": ("memory_saved_share", "", percent),
        "misses": ("miss_rate", phase, percent),
        "worst": ("worst_miss_rate", phase, percent),
        "loaded": ("step_bytes_loaded", phase, format_bytes),
        "stalls": ("stall_time", phase, duration),
        "step": ("step_latency", phase, duration),
        "tokens/s": ("throughput", phase, rate),
        "energy/token": ("energy", phase, lambda value: f"{value:.3g} mJ"),
    }
    curves = {
        title: dict(metrics.curve(metric, "slots", phase=where, variant=variant))
        for title, (metric, where, _) in columns.items()
    }
    known = [title for title, points in curves.items() if points]
    rows = [
        [str(slots), *(cell(curves[title].get(slots), columns[title][2]) for title in known)] for slots in sorted(latencies)
    ]
    caption = (
        "By slots per layer. misses and worst = miss rate from a cold start, over all layers and in the worst layer; loaded, stalls and "
        "step = per step."
    )
    yield Table(["slots", *known], rows, caption=caption)
    sizes = dict(metrics.curve("memory_static", "slots", variant=variant))
    points = sorted((sizes[slots] / MIB, latency) for slots, latency in latencies.items() if slots in sizes)
    yield Curves(
        f"Latency by memory, {phase}",
        "MiB of weights per rank",
        "step latency",
        [(variant, points)],
        "A point per number of slots (paper figure 13).",
        write_y=duration,
    )


def layer_blocks(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[Block]:
    """Miss rates, and a residency map, of every layer."""
    layers = metrics.distinct("layer", "miss_rate", phase=phase)
    columns: dict[str, tuple[str, Write]] = {
        "accesses": ("expert_accesses", lambda value: f"{value:,.0f}"),
        "miss rate": ("miss_rate", percent),
        "loaded": ("bytes_loaded", format_bytes),
        "load time/step": ("load_time", duration),
        "stall/step": ("stall_time", duration),
    }
    rows = [
        [
            layer,
            *(
                cell(metrics.or_none(metric, phase=phase, variant=variant, layer=layer), write)
                for metric, write in columns.values()
            ),
        ]
        for layer in layers
    ]
    yield Table(["layer", *columns], rows, caption="Every buffered layer, over all domains and ranks.")
    for layer in layers:
        loads = run.loads.of(variant=variant, phase=phase, layer=layer, point="", rank=0)
        if len(loads):
            yield residency_map(loads, layer, run.record.ran.model.experts)


def residency_map(loads: ExpertLoads, layer: str, num_experts: int) -> HeatMap:
    """Which experts were resident over the steps; neighbouring experts and steps are grouped if there are too many."""
    resident_ES = residency(loads, num_experts)
    values, labels, _ = grouped_residency(resident_ES, MAX_ROWS, MAX_COLUMNS)
    caption = f"Rows are experts, columns are {resident_ES.shape[1]:,} steps from left to right. Darker: resident for longer."
    return HeatMap(f"Experts resident in layer {layer}", labels, values, 1.0, caption)


def grouped_residency(
    resident_ES: npt.NDArray[np.bool_], most_rows: int, most_columns: int
) -> tuple[list[list[float]], list[str], list[str]]:
    """The share of the time that groups of neighbouring experts were resident over groups of steps, and the names of both groups.

    Experts before the first and after the last that was ever resident are left out.
    """
    held = np.flatnonzero(resident_ES.any(axis=1))
    first, last = int(held.min()), int(held.max()) + 1
    experts = np.array_split(np.arange(first, last), min(most_rows, last - first))
    steps = np.array_split(np.arange(resident_ES.shape[1]), min(most_columns, resident_ES.shape[1]))
    shares = [[float(resident_ES[np.ix_(group, column)].mean()) for column in steps] for group in experts]
    names = [[str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in groups] for groups in (experts, steps)]
    return shares, names[0], names[1]


def residency(loads: ExpertLoads, num_experts: int) -> npt.NDArray[np.bool_]:
    """Whether an expert is resident after each step, (experts, steps)."""
    steps = loads.column("step")
    number_N = np.cumsum(np.diff(steps, prepend=steps[:1]) != 0)
    resident_ES = np.zeros((num_experts, int(number_N[-1]) + 1), bool)
    now, before = np.zeros(num_experts, bool), 0
    columns = (loads.column(name).tolist() for name in ("expert", "victim"))
    for number, expert, victim in zip(number_N.tolist(), *columns, strict=True):
        resident_ES[:, before:number] = now[:, None]
        before = number
        now[expert] = True
        if victim >= 0:
            now[victim] = False
    resident_ES[:, before:] = now[:, None]
    return resident_ES
