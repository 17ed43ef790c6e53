"""What ranks send each other, how long they wait, and how evenly they are loaded."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.communication import bytes_by_pair
from moeprof.records.metrics.registry import Address
from moeprof.records.regions import REGIONS
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes, format_duration, format_significant
from moeprof.reporters.cells import cell, percent, times
from moeprof.reporters.documents.document import Block, Bullets, Details, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.sections.tables import MetricColumn, Row, metric_table

MATRIX_RANKS = 6
"""More of them make a map, not a table."""

COSTS: dict[str, MetricColumn] = {
    "ops": "collectives",
    "bytes": ("comm_bytes", format_bytes),
    "transfer": ("comm_time", format_duration),
    "floor": ("floor_time", format_duration),
    "/floor": ("time_over_floor", times),
    "waiting": ("comm_wait_time", format_duration),
    "exposed": ("comm_exposed_time", format_duration),
}


def traffic_section(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """What a characterization says of static gating's traffic; nothing of a single rank."""
    if run.record.ran.parallel.ranks == 1:
        return
    yield Heading("What ranks send each other", 3)
    if told := list(traffic_blocks(run, metrics, phase, "static")):
        yield from told
    else:
        yield Paragraph("This run has no pass `traffic`, so what ranks send each other is not known.")


def traffic_blocks(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[Block]:
    """One variant's collectives by region, by pair of ranks and by layer, and its ranks side by side."""
    regions = [region for region in REGIONS if metrics.or_none("collectives", phase=phase, variant=variant, region=region)]
    if regions:
        yield from sentence(run, metrics, phase, variant)
        yield region_table(metrics, phase, variant, regions)
        yield from pair_blocks(run, phase, variant)
        yield rank_table(run, metrics, phase, variant)
        yield Details("communication per layer", [layer_table(metrics, phase, variant)])


def sentence(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[Block]:
    """What crosses, how long that takes, and how much of a step ranks stand still for it."""
    size, crossing = (metrics.or_none("comm_bytes", phase=phase, variant=variant, category=which) for which in ("", "crossing"))
    moving, waiting, exposed, over, part = (
        metrics.or_none(metric, phase=phase, variant=variant)
        for metric in ("comm_time", "comm_wait_time", "comm_exposed_time", "time_over_floor", "comm_share")
    )
    if size is None or crossing is None or moving is None or waiting is None or exposed is None:
        return
    floor = f", {times(over)} the least that the measured link allows" if over else ""
    share = f", {percent(part)} of the step" if part is not None else ""
    yield Paragraph(
        f"In one {phase} step {run.record.ran.parallel.ranks} ranks send {format_bytes(size)}, {format_bytes(crossing)} of it to "
        f"each other. The transfer takes {format_duration(moving)}{floor}; a rank waits {format_duration(waiting)} for the others "
        f"on top of it (mean), and stands still for {format_duration(exposed)}{share}."
    )


def region_table(metrics: RunMetrics, phase: str, variant: str, regions: Sequence[str]) -> Table:
    """Every kind of collective, and all of them."""
    address = Address(phase=phase, variant=variant)
    rows = [Row([region or "all"], address | Address(region=region)) for region in (*regions, "")]
    return metric_table(
        metrics,
        ["collective"],
        COSTS,
        rows,
        "Per step, over layers: bytes of all ranks, rows to oneself included; transfer is the time on the rank that was shortest, "
        "floor the least that the measured link allows; waiting and exposed (standing still) are means over ranks.",
    )


def pair_blocks(run: Run, phase: str, variant: str) -> Iterator[Block]:
    """Bytes from each rank to each."""
    found = run.traffic.of(phase, variant)
    if found is None:
        return
    bytes_NN = bytes_by_pair(found)
    ranks = [str(rank) for rank in range(len(bytes_NN))]
    caption = "Bytes of a step from the rank of the line to the rank of the column."
    if len(ranks) <= MATRIX_RANKS:
        rows = [[f"from {rank}", *map(format_bytes, sizes)] for rank, sizes in zip(ranks, bytes_NN, strict=True)]
        yield Table(["rank", *(f"to {rank}" for rank in ranks)], rows, caption=caption)
    else:
        top = float(bytes_NN.max())
        yield HeatMap("From rank to rank", ranks, bytes_NN.tolist(), top, f"{caption} Full shade: {format_bytes(top)}.")


def rank_table(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Table:
    """Tokens, memory and waiting of every rank, and how uneven they are."""
    rows = []
    for rank in range(run.record.ran.parallel.ranks):
        own = metrics.at(rank=str(rank))
        rows.append(
            [
                str(rank),
                cell(own.or_none("rank_tokens", phase=phase, variant=variant)),
                cell(own.or_none("memory_total_peak", phase=phase, variant=variant), format_bytes),
                cell(own.or_none("comm_bytes", phase=phase, variant=variant, category="crossing"), format_bytes),
                cell(own.or_none("comm_wait_time", phase=phase, variant=variant), format_duration),
                cell(own.or_none("comm_exposed_time", phase=phase, variant=variant), format_duration),
            ]
        )
    uneven = {name: metrics.or_none(f"rank_{name}_max_over_mean", phase=phase, variant=variant) for name in ("load", "wait")}
    memory = metrics.or_none("rank_memory_max_over_mean", phase=phase, variant=variant)
    rows.append(["max/mean", cell(uneven["load"], times), cell(memory, times), "", cell(uneven["wait"], times), ""])
    return Table(
        ["rank", "tokens", "peak memory", "to others", "waiting", "exposed"],
        rows,
        caption="Every rank: choices that reach its experts in a layer's step (mean over layers), memory at the peak, bytes to others, "
        "time. max/mean of tokens is taken per layer and step, of waiting per layer; then the mean.",
    )


def layer_table(metrics: RunMetrics, phase: str, variant: str) -> Table:
    """Every layer's collectives, and how uneven its ranks are."""
    address = Address(phase=phase, variant=variant)
    columns: dict[str, MetricColumn] = COSTS | {
        "tokens max/mean": ("rank_load_max_over_mean", times),
        "waiting max/mean": ("rank_wait_max_over_mean", times),
    }
    rows = [Row([layer], address | Address(layer=layer)) for layer in metrics.distinct("layer", "comm_bytes", phase=phase)]
    return metric_table(metrics, ["layer"], columns, rows, "Per step, all collectives of a layer.")


def traffic_table(metrics: RunMetrics, phase: str, variants: Sequence[str]) -> Table:
    """What communication costs under every variant, side by side."""

    def row(title: str, column: MetricColumn, category: str = "") -> list[str]:
        metric, write = column if isinstance(column, tuple) else (column, format_significant)
        return [title, *(cell(metrics.or_none(metric, phase=phase, variant=one, category=category), write) for one in variants)]

    rows = [
        row("collectives", "collectives"),
        row("bytes", COSTS["bytes"]),
        row("of it to other ranks", COSTS["bytes"], "crossing"),
        row("transfer", COSTS["transfer"]),
        row("over its floor", COSTS["/floor"]),
        row("waiting", COSTS["waiting"]),
        row("exposed", COSTS["exposed"]),
        row("of the step", ("comm_share", percent)),
        row("busiest rank's tokens over mean", ("rank_load_max_over_mean", times)),
    ]
    caption = (
        "Bytes of all ranks, rows to oneself included. Transfer: the shortest rank's time; waiting, exposed: means over ranks."
    )
    return Table(["per step", *variants], rows, caption=caption)


def link_blocks(metrics: RunMetrics) -> Iterator[Block]:
    """What was measured between ranks; nothing where it was not."""
    for kind in metrics.distinct("category", "link_latency", phase=""):
        latency, best = (metrics.or_none(metric, category=kind) for metric in ("link_latency", "link_bandwidth"))
        if latency is not None and best is not None:
            yield Bullets([f"Link {kind}: {format_duration(latency)} for a small message, {format_bytes(best)}/s at best"])
            yield Details(f"link {kind}, by size of message", [link_table(metrics, kind)])


def link_table(metrics: RunMetrics, kind: str) -> Table:
    """Time and bandwidth of every message that was measured."""
    cells = [
        [format_bytes(size), format_duration(size * 1e9 / rate), f"{format_bytes(rate)}/s"]
        for size, rate in metrics.curve("link_bandwidth", "message", category=kind)
        if rate > 0
    ]
    return Table(["message", "time", "bandwidth"], cells, caption="The shortest of many, one way, nothing else going on.")
