"""What copies of experts are worth, and what placing again along the trace gains and moves."""

from collections.abc import Iterator

from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement import rebalancing_results as along
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.row import RecordedRow
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, interval, percent
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Figure, MarkedLine, Series, View
from moeprof.reporters.sections import replicas
from moeprof.reporters.sections.rebalancing import reference_name, strategy_name

GAIN = Axis("gain over contiguous", "fraction")


def replica_figure(results: RunMetrics) -> Iterator[PageBlock]:
    """The gain of the best balancer over extra slots; nothing if they are not compared."""
    views = []
    for phase in balance_results.phases(results):
        gains = [(row, gain) for row in replicas.numbers(results, phase) if (gain := slots_gain(results, row))]
        if gains:
            ends = [[end for _, gain in gains for end in gain[which : which + 1]] for which in range(3)]
            at, remarks = (
                [f"{replicas.extra_slots(row):,}" for row, _ in gains],
                [slots_remark(results, row) for row, _ in gains],
            )
            line = Series("best balancer", at, ends[0], low=ends[1], high=ends[2], remarks=remarks)
            views.append(View({"phase": phase}, [line], readout=" ".join(replicas.replica_lines(results, phase))))
    if views:
        yield Figure(
            "placement-replicas",
            "Gain over slots for copies",
            "What more slots for copies of experts gain: by what fraction the busiest device's share falls.",
            Axis("extra slots per layer and device"),
            GAIN,
            views,
            caption="The balancer that is best with so many slots; band: 95% interval from resampled test steps.",
        )


def slots_gain(results: RunMetrics, row: RecordedRow) -> list[RecordedNumber]:
    """The gain over contiguous of the best balancer with so many slots, and the ends of its interval; none if it is unknown."""
    point = format_point({"balancer": row.key.category, **row.swept})
    found = [results.or_none(f"load_gain{end}", phase=row.key.phase, point=point) for end in ("", "_low", "_high")]
    known = [number for number in found if number is not None]
    return known if len(known) == len(found) else []


def slots_remark(results: RunMetrics, row: RecordedRow) -> str:
    """`eplb, 902 MiB on all devices, gain 2.0% [1.0% to 3.0%] over the number before`."""
    size = replicas.of_row(results, "replicas_bytes", row)
    gain = [replicas.of_row(results, f"replicas_gain{end}", row) for end in ("", "_low", "_high")]
    value, low, high = (None if number is None else percent(number) for number in gain)
    parts = [row.key.category]
    parts += [f"{format_bytes(size)} on all devices"] if size is not None else []
    parts += [f"gain {value} [{low} to {high}] over the number before"] if value else []
    return ", ".join(parts)


def rebalancing_figures(results: RunMetrics) -> Iterator[PageBlock]:
    """Gains and moves over the steps between placements; nothing if experts are not placed again."""
    phases = [phase for phase in balance_results.phases(results) if strategies(results, phase)]
    if not phases:
        return
    balance = results.record.balanced
    yield Figure(
        "placement-again",
        "Gain if experts are placed again along the trace",
        "What it gains to follow the loads, beside placements that are made once.",
        Axis("steps between placements", logarithmic=True),
        GAIN,
        [gain_view(results, phase) for phase in phases],
        caption=f"On the steps after the first {balance.window:,}. A placement is made from the last {balance.window:,} steps only. Each "
        "dot is the balancer with the least load; hover for its name and its moves. full: placed anew; incremental: by at most "
        f"{balance.most_moves} experts of a layer per device; once: made from the first window, and kept.",
    )
    yield Figure(
        "placement-moves",
        "Experts that are moved per placement",
        "How many experts devices fetch each time, over all layers: the price of the gain above.",
        Axis("steps between placements", logarithmic=True),
        Axis("moved experts"),
        [View({"phase": phase}, all_series(results, "rebalance_moved_experts", phase)) for phase in phases],
        caption="Mean over the placements after the first one, of the strategies of the figure above.",
    )


def strategies(results: RunMetrics, phase: str) -> dict[str, list[RecordedRow]]:
    """The strategies that place again: with and without copies, the best balancer of each schedule and number of steps."""
    found: dict[str, list[RecordedRow]] = {}
    for row in along.shown(results, phase):
        if "every" in row.swept:
            copies = "with" if along.makes_copies(results, row) else "without"
            found.setdefault(f"{row.swept['schedule']}, {copies} copies", []).append(row)
    return found


def gain_view(results: RunMetrics, phase: str) -> View:
    """The gains of all strategies over contiguous placement, beside those of the best placements that are made once."""
    kept = [row for row in along.shown(results, phase) if row.swept["schedule"] == "once"]
    marks = [
        MarkedLine(f"{row.swept['balancer']}, once", gain)
        for row in kept
        if (gain := number_of(results, "rebalance_gain", row)) is not None
    ]
    words = " ".join(verdicts(results, phase))
    return View({"phase": phase}, all_series(results, "rebalance_gain", phase), marks=marks, readout=words)


def verdicts(results: RunMetrics, phase: str) -> Iterator[str]:
    """`Without copies: greedy placed anew every 8 steps gains 2.8% (...) over greedy placed once: a measurable gain.`"""
    for copies in (False, True):
        row = along.judged(results, phase, copies=copies)
        gain = along.ends(results, "repeat_gain", phase, row.key.point) if row else None
        if row and gain:
            net = along.ends(results, "repeat_net_gain", phase, row.key.point)
            often = "every step" if row.swept["every"] == "1" else f"every {row.swept['every']} steps"
            yield (
                f"{'With' if copies else 'Without'} copies: {strategy_name(row)} {often} gains {interval(gain)} over "
                f"{reference_name(results, phase, row)}: {along.repeat_verdict(gain, net)}."
            )


def all_series(results: RunMetrics, metric: str, phase: str) -> list[Series]:
    """A number of all strategies over the steps between placements."""
    return [strategy_series(results, metric, name, rows) for name, rows in strategies(results, phase).items()]


def strategy_series(results: RunMetrics, metric: str, name: str, rows: list[RecordedRow]) -> Series:
    """A number of the same schedule over the steps between placements."""
    found = [(int(row.swept["every"]), number, row) for row in rows if (number := number_of(results, metric, row)) is not None]
    remarks = [strategy_remark(results, row) for _, _, row in found]
    return Series(name, [every for every, _, _ in found], [number for _, number, _ in found], remarks=remarks)


def number_of(results: RunMetrics, metric: str, row: RecordedRow) -> RecordedNumber | None:
    """Another number of the strategy of a row."""
    return along.value(results, metric, row.key.phase, row.key.point)


def strategy_remark(results: RunMetrics, row: RecordedRow) -> str:
    """`greedy, 119 experts and 445 MiB per step`."""
    moved, size, time = (
        number_of(results, metric, row) for metric in ("rebalance_moved_experts", "rebalance_step_bytes", "rebalance_time")
    )
    parts = [row.swept["balancer"]]
    parts += [f"{moved:,.0f} experts each time"] if moved is not None else []
    parts += [f"{format_bytes(size)} per step"] if size is not None else []
    parts += [f"{duration(time)} each time (modelled)"] if time is not None else []
    return ", ".join(parts)
