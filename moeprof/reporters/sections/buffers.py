"""Expert buffering: what slots save, what misses cost, how other numbers of slots would do, and who was in a slot when."""

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
"""Of a map of slots: more experts, or steps, share a cell."""


def buffered_variants(run: Run, metrics: RunMetrics, phase: str) -> list[str]:
    """Labels of those that had to load experts in a phase."""
    labels = [str(one["label"]) for one in run.record.variants if one.get("store") == "buffered"]
    return [label for label in labels if metrics.or_none("expert_accesses", phase=phase, variant=label) is not None]


def buffer_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Nothing where no expert is loaded in the phase."""
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
            f"misses and slots of {name_of(variant)}, layer by layer", list(layer_blocks(run, metrics, phase, variant))
        )


def operating_points(run: Run, metrics: RunMetrics, phase: str, variant: str) -> str:
    """What is saved at the chosen slots, and at the other end: two different things, told apart."""
    slots, experts = metrics.or_none("expert_slots_per_layer", variant=variant), run.record.ran.model.experts
    local = experts // run.record.ran.parallel.ranks
    rate_here = metrics.or_none("miss_rate", phase=phase, variant=variant)
    extreme = dict(metrics.curve("miss_rate", "slots", phase=phase, variant=variant)).get(1)
    told = f", where {percent(extreme)} miss" if extreme is not None else ""
    here = saved(metrics.or_none("memory_saved", variant=variant), metrics.or_none("memory_saved_share", variant=variant))
    ratios = [dict(metrics.curve(name, "slots", variant=variant)).get(1) for name in ("memory_saved", "memory_saved_share")]
    most = saved(*ratios)
    ratio, best = (
        metrics.or_none("memory_reduction", variant=variant),
        dict(metrics.curve("memory_reduction", "slots", variant=variant)).get(1),
    )
    return (
        f"{name_of(variant).capitalize()}: {cell(slots, count)} of a layer's {local} experts"
        f"{' on a rank' if local < experts else ''} have a slot. That saves {here}, a reduction of {cell(ratio, times)}, and "
        f"{cell(rate_here, percent)} of the accesses miss. The largest saving is another operating point, one slot{told}: "
        f"{most}, {cell(best, times)}."
    )


def saved(size: float | None, share: float | None) -> str:
    """`2.25 GiB (12.9% of a rank's weights)`."""
    return f"{cell(size, format_bytes)} ({cell(share, percent)} of a rank's weights)"


def cost_table(metrics: RunMetrics, phase: str, variants: Sequence[str]) -> Table:
    """Misses counted from a cold start, and times per step in the steady state."""
    rows: dict[str, tuple[str, Write, str]] = {
        "slots per layer": ("expert_slots_per_layer", count, ""),
        "accesses": ("expert_accesses", lambda value: f"{value:,.0f}", phase),
        "misses": ("misses", lambda value: f"{value:,.0f}", phase),
        "miss rate": ("miss_rate", percent, phase),
        "of the worst layer": ("worst_miss_rate", percent, phase),
        "loaded, all of them": ("bytes_loaded", format_bytes, phase),
        "loaded per step": ("step_bytes_loaded", format_bytes, phase),
        "step": ("step_latency", duration, phase),
        "of it loading": ("load_time", duration, phase),
        "could hide": ("hideable_time", duration, phase),
        "stands still": ("stall_time", duration, phase),
        "hidden of what could": ("hidden_fraction", percent, phase),
        "pace of loads": ("load_bandwidth", lambda value: f"{format_bytes(value)}/s", phase),
    }

    cells = [
        [title, *(cell(metrics.or_none(metric, phase=where, variant=variant), write) for variant in variants)]
        for title, (metric, write, where) in rows.items()
    ]
    told = [row for row in cells if any(text != MISSING for text in row[1:])]
    caption = (
        "Misses of every recorded batch, from empty slots. Times per step, medians over rounds of the timed batches, mean over "
        "ranks: loads run beside other work; of each layer's step as much could hide as its other work takes."
    )
    return Table(["", *variants], told, caption=caption)


def sweep_blocks(metrics: RunMetrics, phase: str, variant: str) -> Iterator[Block]:
    """Every number of slots that was measured; nothing without --sweep-slots."""
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
    told = [title for title, points in curves.items() if points]
    rows = [[str(slots), *(cell(curves[title].get(slots), columns[title][2]) for title in told)] for slots in sorted(latencies)]
    caption = (
        "By slots of each layer: misses from empty slots of the batches that are judged, `worst` in the layer where they are most; "
        "bytes loaded and stalls of a step."
    )
    yield Table(["slots", *told], rows, caption=caption)
    sizes = dict(metrics.curve("memory_static", "slots", variant=variant))
    points = sorted((sizes[slots] / MIB, latency) for slots, latency in latencies.items() if slots in sizes)
    yield Curves(
        f"Latency over memory, {phase}",
        "MiB of weights on a rank",
        "time of a step",
        [(variant, points)],
        "One point for each number of slots (paper figure 13).",
        write_y=duration,
    )


def layer_blocks(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[Block]:
    """Miss rates, and which experts were in a slot over the steps."""
    layers = metrics.distinct("layer", "miss_rate", phase=phase)
    columns: dict[str, tuple[str, Write]] = {
        "accesses": ("expert_accesses", lambda value: f"{value:,.0f}"),
        "miss rate": ("miss_rate", percent),
        "loaded": ("bytes_loaded", format_bytes),
        "loading/step": ("load_time", duration),
        "stands still/step": ("stall_time", duration),
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
    yield Table(["layer", *columns], rows, caption="Of every buffered layer, over all domains and ranks.")
    for layer in layers:
        loads = run.loads.of(variant=variant, phase=phase, layer=layer, point="", rank=0)
        if len(loads):
            yield residency_map(loads, layer, run.record.ran.model.experts)


def residency_map(loads: ExpertLoads, layer: str, num_experts: int) -> HeatMap:
    """Who was in a slot over the steps; experts and steps that are too many share a cell."""
    resident_ES = residency(loads, num_experts)
    held = np.flatnonzero(resident_ES.any(axis=1))
    first, last = int(held.min()), int(held.max()) + 1
    groups = np.array_split(np.arange(first, last), min(MAX_ROWS, last - first))
    columns = np.array_split(np.arange(resident_ES.shape[1]), min(MAX_COLUMNS, resident_ES.shape[1]))
    values = [[float(resident_ES[np.ix_(group, steps)].mean()) for steps in columns] for group in groups]
    labels = [f"{group[0]}" if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups]
    caption = f"Rows are experts, columns {resident_ES.shape[1]:,} steps from left to right; darker: longer in a slot."
    return HeatMap(f"In a slot of layer {layer}", labels, values, 1.0, caption)


def residency(loads: ExpertLoads, num_experts: int) -> npt.NDArray[np.bool_]:
    """Whether an expert is in a slot behind each step, (E, steps)."""
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
