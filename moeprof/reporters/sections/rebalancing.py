"""Placements that are made again and again along the trace: whether it is worth it, how often, and with which balancer."""

from collections.abc import Iterator

from moeprof.analysis.placement import rebalancing_results as along
from moeprof.analysis.placement.balance_results import balancer_value
from moeprof.analysis.placement.gain import Gain
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.registry import BALANCERS
from moeprof.records.metrics.row import RecordedRow
from moeprof.records.units import format_bytes, format_significant
from moeprof.reporters.cells import Write, at_once, cell, duration, interval, percent, plural
from moeprof.reporters.documents.document import Block, Details, Table
from moeprof.reporters.sections.tables import with_values

COLUMNS: dict[str, tuple[str, Write]] = {
    "avg max": ("rebalanced_load", percent),
    "max/mean": ("rebalanced_imbalance", lambda ratio: f"{ratio:.2f}"),
    "gain": ("rebalance_gain", percent),
    "first moved": ("first_moved_experts", lambda number: f"{number:,.0f}"),
    "moved": ("rebalance_moved_experts", lambda number: f"{number:,.0f}"),
    "bytes/step": ("rebalance_step_bytes", format_bytes),
    "time": ("rebalance_time", duration),
    "over once": ("repeat_gain", percent),
    "from": ("repeat_gain_low", percent),
    "to": ("repeat_gain_high", percent),
    "net": ("repeat_net_gain", percent),
    "net from": ("repeat_net_gain_low", percent),
    "net to": ("repeat_net_gain_high", percent),
    "worth it above": ("break_even_time", duration),
    "paid back": ("payback_steps", lambda steps: f"{steps:,.0f}"),
}
"""Title, metric and format of every column."""

NOTES = {
    "moved": "first moved, moved = experts that devices fetch for the first placement, and for each later one, all layers",
    "time": "time = of one such move at the link bandwidth, modelled",
    "over once": "over once = decrease of avg max compared with the best placement made once; 95% intervals, for all at once",
    "net": "net = the same after the time of moves, if the experts of a step take --expert-time under contiguous placement",
    "worth it above": "worth it above = the time of a step's experts under contiguous placement from which moves cost less than they gain",
    "paid back": "paid back = steps after which the first move has cost less than it gained",
}


def rebalancing_blocks(results: RunMetrics, phase: str) -> Iterator[Block]:
    """The table of the best strategies, and all of them; nothing if experts are not placed again."""
    if along.strategies(results, phase):
        balance, steps = results.record.balanced, results.value("rebalance_steps", phase=phase)
        caption = (
            f"Placed along the trace, {balance.focus} devices, judged on the {steps:,.0f} steps after the first {balance.window:,}. Every "
            f"placement is made from the last {balance.window:,} steps only. fixed = knows no loads; once = from the first window; full = "
            "placed anew; incremental = from the last placement, a device receives at most "
            f"{balance.most_moves} {plural(balance.most_moves, 'expert', 'experts')} of a layer. gain = decrease of avg max compared with "
            "contiguous. Shown: with and without copies, the balancer with the least avg max of each schedule"
        )
        yield strategy_table(results, phase, along.shown(results, phase), caption)
        everything = strategy_table(results, phase, along.strategies(results, phase), "All strategies, with the columns above")
        yield Details(f"every balancer and schedule along the trace, {phase}", [everything])


def strategy_table(results: RunMetrics, phase: str, strategies: list[RecordedRow], caption: str) -> Table:
    """A row per strategy; columns without any value are omitted."""
    cells = {
        title: [cell(along.value(results, metric, phase, row.key.point), write) for row in strategies]
        for title, (metric, write) in COLUMNS.items()
    }
    known = with_values(cells)
    labels = [[row.swept["balancer"], row.swept["schedule"], row.swept.get("every", "")] for row in strategies]
    rows = [[*names, *numbers] for names, numbers in zip(labels, zip(*known.values(), strict=True), strict=True)]
    notes = [note for title, note in NOTES.items() if title in known]
    return Table(["balancer", "schedule", "every", *known], rows, labels=3, caption=" · ".join([caption, *notes]) + ".")


def repeat_lines(results: RunMetrics, phase: str) -> Iterator[str]:
    """Whether placing again is worth it, without and with copies."""
    for copies in (False, True):
        row = along.judged(results, phase, copies=copies)
        gain = along.ends(results, "repeat_gain", phase, row.key.point) if row else None
        if row is None or gain is None:
            continue
        net = along.ends(results, "repeat_net_gain", phase, row.key.point)
        balance = results.record.balanced
        yield (
            f"Placing again ({phase}, {balance.focus} devices{step_size(results, phase)}, {often(row)} from the last {balance.window:,}, "
            f"{'with' if copies else 'without'} copies): {strategy_name(row)} gains {interval(gain)} over "
            f"{reference_name(results, phase, row)}, on {gain.steps:,} steps: {along.repeat_verdict(gain, net)}"
            f"{at_once(along.compared(results, phase), 'strategies')}."
            + (cost(results, phase, row, net) if gain.low > 0 else "")
            + (" No exchange would save more time than it takes." if moves_nothing(results, phase, row) else "")
        )


def repeat_answer(results: RunMetrics, phase: str) -> Iterator[str]:
    """Whether placing again is worth it, in one sentence about the strategy whose gain is the most certain."""
    found: list[tuple[float, str]] = []
    for copies in (False, True):
        row = along.judged(results, phase, copies=copies)
        gain = along.ends(results, "repeat_gain", phase, row.key.point) if row else None
        if row is not None and gain is not None:
            net = along.ends(results, "repeat_net_gain", phase, row.key.point)
            verdict = along.repeat_verdict(gain, net)
            text = f"{verdict} ({strategy_name(row)}, {interval(net or gain)}{' net of moves' if net else ''})"
            found.append((float((net or gain).low), f"Placing again {often(row)}: {text}."))
    if found:
        yield max(found)[1]


def often(row: RecordedRow) -> str:
    """`every 4 steps`, or `every step`."""
    return "every step" if row.swept["every"] == "1" else f"every {row.swept['every']} steps"


def strategy_name(row: RecordedRow) -> str:
    """`greedy placed anew`, or `incremental placement from greedy`."""
    name = row.swept["balancer"]
    return f"incremental placement from {name}" if row.swept["schedule"] == "incremental" else f"{name} placed anew"


def reference_name(results: RunMetrics, phase: str, row: RecordedRow) -> str:
    """`greedy placed once`, or `contiguous placement, which never moves`."""
    name = along.reference(results, phase, row.key.point)
    return f"{name} placement, which never moves" if BALANCERS[name].fixed else f"{name} placed once"


def step_size(results: RunMetrics, phase: str) -> str:
    """`, 16 tokens per step`, or nothing if the run did not record it."""
    tokens = results.or_none("test_step_tokens", phase=phase)
    one, many = results.record.balanced.trace.counted
    return f", {format_significant(tokens)} {one if float(tokens) == 1 else many} per step" if tokens else ""


def moves_nothing(results: RunMetrics, phase: str, row: RecordedRow) -> bool:
    """Whether all later placements are the first one."""
    moved = along.value(results, "rebalance_moved_experts", phase, row.key.point)
    return moved is not None and not float(moved)


def cost(results: RunMetrics, phase: str, row: RecordedRow, net: Gain | None) -> str:
    """What the moves of a strategy cost, and what is left of its gain or would be needed."""
    point, balance = row.key.point, results.record.balanced
    moved, size, time = (
        along.value(results, metric, phase, point)
        for metric in ("rebalance_moved_experts", "rebalance_step_bytes", "rebalance_time")
    )
    if size is None or time is None:
        return f" It moves {moved or 0:,.0f} experts each time (their bytes are unknown: set --expert-bytes)."
    tokens = balancer_value(results, "virtual_comm_bytes", phase, CONTIGUOUS.name, balance.focus)
    beside = f" beside {format_bytes(tokens)} of tokens" if tokens else ""
    text = (
        f" It moves {moved or 0:,.0f} experts each time, {format_bytes(size)} per step{beside}, in {duration(time)} at "
        f"{format_bytes(balance.bandwidth)}/s (modelled)."
    )
    if net is not None and balance.expert_ns:
        return f"{text} Net of that time, with {duration(balance.expert_ns)} of experts in a step, {interval(net)} remains."
    needed = along.ends(results, "break_even_time", phase, point)
    if needed is None:
        return text
    return (
        f"{text} That is worth it if the experts of a step take more than {duration(needed.value)} (95% interval {duration(needed.low)} to "
        f"{duration(needed.high)}) under contiguous placement (--expert-time)."
    )
