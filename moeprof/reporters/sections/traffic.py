"""Communication between ranks: bytes, transfer and waiting time, and how evenly ranks are loaded."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.communication import bytes_by_pair
from moeprof.records.metrics.row import Address
from moeprof.records.regions import REGIONS
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes, format_duration, format_significant
from moeprof.reporters.cells import cell, percent, times
from moeprof.reporters.documents.document import Block, Bullets, Details, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.sections.tables import MetricColumn, Row, metric_table

MATRIX_RANKS = 6
"""The maximum number of ranks in a table; more are shown as a heat map."""

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
    """Communication of a characterization; nothing for a single rank."""
    if run.record.ran.parallel.ranks == 1:
        return
    yield Heading("Communication between ranks", 3)
    if blocks := list(traffic_blocks(run, metrics, phase, metrics.baseline)):
        yield from blocks
    else:
        yield Paragraph("Not measured: this run has no traffic pass.")


def traffic_blocks(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[Block]:
    """Collectives of one variant by region, by pair of ranks, by rank and by layer."""
    regions = [region for region in REGIONS if metrics.or_none("collectives", phase=phase, variant=variant, region=region)]
    if regions:
        yield from sentence(run, metrics, phase, variant)
        yield region_table(metrics, phase, variant, regions)
        yield from pair_blocks(run, phase, variant)
        yield rank_table(run, metrics, phase, variant)
        yield Details("communication per layer", [layer_table(metrics, phase, variant)])


def sentence(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[Block]:
    """Bytes, transfer time, waiting time and exposed time of a step."""
    size, crossing = (metrics.or_none("comm_bytes", phase=phase, variant=variant, category=which) for which in ("", "crossing"))
    moving, waiting, exposed, over, part = (
        metrics.or_none(metric, phase=phase, variant=variant)
        for metric in ("comm_time", "comm_wait_time", "comm_exposed_time", "time_over_floor", "comm_share")
    )
    if size is None or crossing is None or moving is None or waiting is None or exposed is None:
        return
    floor = f", {times(over)} its floor on the measured link" if over else ""
    share = f", {percent(part)} of the step" if part is not None else ""
    yield Paragraph(
        f"Per {phase} step, {run.record.ran.parallel.ranks} ranks send {format_bytes(size)}, of which {format_bytes(crossing)} go to other "
        f"ranks. The transfer takes {format_duration(moving)}{floor}; in addition a rank waits {format_duration(waiting)} for the others "
        f"(mean). Exposed communication: {format_duration(exposed)}{share}."
    )


def region_table(metrics: RunMetrics, phase: str, variant: str, regions: Sequence[str]) -> Table:
    """Costs of every kind of collective, and of all together."""
    address = Address(phase=phase, variant=variant)
    rows = [Row([region or "all"], address | Address(region=region)) for region in (*regions, "")]
    return metric_table(
        metrics,
        ["collective"],
        COSTS,
        rows,
        "Per step, summed over layers. bytes = sent by all ranks, including rows that stay on their rank; transfer = time on the rank "
        "that took least; floor = least time on the measured link; waiting and exposed (rank is blocked) = means over ranks.",
    )


def pair_blocks(run: Run, phase: str, variant: str) -> Iterator[Block]:
    """Bytes from every rank to every rank, as a table or a heat map."""
    found = run.traffic.of(phase, variant)
    if found is None:
        return
    bytes_NN = bytes_by_pair(found)
    ranks = [str(rank) for rank in range(len(bytes_NN))]
    caption = "Bytes per step, from the rank of the row to the rank of the column."
    if len(ranks) <= MATRIX_RANKS:
        rows = [[f"from {rank}", *map(format_bytes, sizes)] for rank, sizes in zip(ranks, bytes_NN, strict=True)]
        yield Table(["rank", *(f"to {rank}" for rank in ranks)], rows, caption=caption)
    else:
        top = float(bytes_NN.max())
        yield HeatMap("From rank to rank", ranks, bytes_NN.tolist(), top, f"{caption} Scale: blank 0 … █ {format_bytes(top)}.")


def rank_table(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Table:
    """Tokens, memory and communication of every rank, and their ratios of maximum to mean."""
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
        caption="tokens = choices that reach the rank's experts per layer and step (mean); to others = bytes sent to other ranks per "
        "step. max/mean is computed per layer and step for tokens, per layer for waiting, and then averaged.",
    )


def layer_table(metrics: RunMetrics, phase: str, variant: str) -> Table:
    """Communication costs of every layer, and how uneven its ranks are."""
    address = Address(phase=phase, variant=variant)
    columns: dict[str, MetricColumn] = COSTS | {
        "tokens max/mean": ("rank_load_max_over_mean", times),
        "waiting max/mean": ("rank_wait_max_over_mean", times),
    }
    rows = [Row([layer], address | Address(layer=layer)) for layer in metrics.distinct("layer", "comm_bytes", phase=phase)]
    return metric_table(metrics, ["layer"], columns, rows, "Per step, all collectives of a layer.")


def traffic_table(metrics: RunMetrics, phase: str, variants: Sequence[str]) -> Table:
    """Communication costs with a column per variant."""

    def row(title: str, column: MetricColumn, category: str = "") -> list[str]:
        metric, write = column if isinstance(column, tuple) else (column, format_significant)
        return [title, *(cell(metrics.or_none(metric, phase=phase, variant=one, category=category), write) for one in variants)]

    rows = [
        row("collectives", "collectives"),
        row("bytes", COSTS["bytes"]),
        row("bytes to other ranks", COSTS["bytes"], "crossing"),
        row("transfer", COSTS["transfer"]),
        row("transfer / floor", COSTS["/floor"]),
        row("waiting", COSTS["waiting"]),
        row("exposed", COSTS["exposed"]),
        row("exposed share of step", ("comm_share", percent)),
        row("tokens max/mean of ranks", ("rank_load_max_over_mean", times)),
    ]
    caption = (
        "bytes = sent by all ranks, including rows that stay on their rank; transfer = time on the rank that took least; waiting and "
        "exposed = means over ranks."
    )
    return Table(["per step", *variants], rows, caption=caption)


def link_blocks(metrics: RunMetrics) -> Iterator[Block]:
    """Latency and bandwidth of the links between ranks; nothing if they were not measured."""
    for kind in metrics.distinct("category", "link_latency", phase=""):
        latency, best = (metrics.or_none(metric, category=kind) for metric in ("link_latency", "link_bandwidth"))
        if latency is not None and best is not None:
            yield Bullets([f"Link {kind}: {format_duration(latency)} latency, {format_bytes(best)}/s peak bandwidth"])
            yield Details(f"link {kind} by message size", [link_table(metrics, kind)])


def link_table(metrics: RunMetrics, kind: str) -> Table:
    """Time and bandwidth of every measured message size."""
    cells = [
        [format_bytes(size), format_duration(size * 1e9 / rate), f"{format_bytes(rate)}/s"]
        for size, rate in metrics.curve("link_bandwidth", "message", category=kind)
        if rate > 0
    ]
    return Table(["message", "time", "bandwidth"], cells, caption="Best of many messages, one way, on an idle link.")
