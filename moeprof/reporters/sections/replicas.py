"""How many redundant experts are worth their memory: a table by number of extra slots, and the number for the headline."""

from collections.abc import Iterator

from moeprof.analysis.placement.balance_results import balancer_value
from moeprof.analysis.placement.gain import Gain
from moeprof.analysis.placement.replica_rows import WORTH_MEMORY
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.metrics.number import number_of
from moeprof.records.metrics.row import RecordedRow
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import cell, interval, percent
from moeprof.reporters.documents.document import Block, Table


def numbers(results: RunMetrics, phase: str) -> list[RecordedRow]:
    """The row `replicas_load` of every number of extra slots, rising."""
    return sorted(results.rows("replicas_load", phase=phase), key=extra_slots)


def extra_slots(row: RecordedRow) -> int:
    """The number of extra slots per layer and device."""
    return int(row.swept["replicas"])


def last_worth(rows: list[RecordedRow]) -> RecordedRow:
    """The smallest number whose avg max load is within WORTH_MEMORY of the least of all."""
    least = min(row.value for row in rows)
    return next(row for row in rows if row.value <= least * (1 + WORTH_MEMORY))


def shown_worth(results: RunMetrics, rows: list[RecordedRow]) -> RecordedRow:
    """The last number up to `last_worth` whose gain over the next smaller one has an interval above 0; else the first number."""
    upto = rows[: rows.index(last_worth(rows)) + 1]
    return next((row for row in reversed(upto[1:]) if (gain := gain_of(results, row)) is None or gain.low > 0), rows[0])


def gain_of(results: RunMetrics, row: RecordedRow) -> Gain | None:
    """The gain of a number over the next smaller one; None for the first one, and if no steps were held out."""
    value, low, high = (of_row(results, f"replicas_gain{end}", row) for end in ("", "_low", "_high"))
    steps = results.or_none("test_steps", phase=row.key.phase)
    return None if value is None or low is None or high is None else Gain(value, low, high, int(steps or 0))


def of_row(results: RunMetrics, metric: str, row: RecordedRow) -> float | None:
    """Another number at the address of a row."""
    return results.or_none(metric, phase=row.key.phase, point=row.key.point, category=row.key.category)


def replica_lines(results: RunMetrics, phase: str) -> Iterator[str]:
    """The last number of extra slots that is worth its memory."""
    rows = numbers(results, phase)
    if not rows:
        return
    chosen, best = shown_worth(results, rows), min(rows, key=lambda row: row.value)
    contiguous = balancer_value(results, "avg_max_load", phase, CONTIGUOUS.name, results.record.balanced.focus)
    beside = f", {percent(contiguous)} under contiguous placement" if contiguous else ""
    yield (
        f"Redundant experts ({phase}, {results.record.balanced.focus} devices): {worth(results, rows)}: avg max load "
        f"{percent(number_of(chosen))} with {chosen.key.category}{beside}. The rule: the smallest "
        f"number within {WORTH_MEMORY:.0%} of the least load ({percent(number_of(best))} with {extra_slots(best):,}), if the interval of "
        "its gain over the next smaller one is above 0; otherwise the next smaller one for which it is."
    )


def worth(results: RunMetrics, rows: list[RecordedRow]) -> str:
    """`of 0, 1, 2 extra slots per layer and device, 1 is the last number that is worth its memory (902 MiB on all devices)`."""
    chosen, tried = shown_worth(results, rows), ", ".join(f"{extra_slots(row):,}" for row in rows)
    of, unshown = f"of {tried} extra slots per layer and device, ", chosen is not last_worth(rows)
    doubt = f"; {over_smaller(results, rows, last_worth(rows))}, which does not show that it is" if unshown else ""
    if not extra_slots(chosen):
        return f"{of}no number above 0 is {'shown to be ' * unshown}worth its memory{doubt}"
    size = of_row(results, "replicas_bytes", chosen)
    memory = f" ({format_bytes(size)} on all devices)" if size else ""
    evidence = f": {over_smaller(results, rows, chosen)}" if gain_of(results, chosen) else ""
    return f"{of}{extra_slots(chosen):,} is the last number that is worth its memory{memory}{evidence}{doubt}"


def over_smaller(results: RunMetrics, rows: list[RecordedRow], row: RecordedRow) -> str:
    """`2 gains 4.9% (95% interval 1.0% to 8.1%) over 1`."""
    gain, smaller = gain_of(results, row), rows[rows.index(row) - 1]
    return f"{extra_slots(row):,} gains {interval(gain) if gain else ''} over {extra_slots(smaller):,}"


def replica_answer(results: RunMetrics, phase: str) -> Iterator[str]:
    """The same in one sentence."""
    if rows := numbers(results, phase):
        yield f"Copies: {worth(results, rows)}."


def replica_blocks(results: RunMetrics, phase: str) -> Iterator[Block]:
    """A row per number of extra slots; nothing if they are not compared."""
    rows = numbers(results, phase)
    if not rows:
        return
    gains, chosen = ("replicas_gain", "replicas_gain_low", "replicas_gain_high"), shown_worth(results, rows)
    cells = [
        [
            f"{extra_slots(row):,}{' (last worth its memory)' * (row is chosen)}",
            row.key.category,
            cell(of_row(results, "replicas_bytes", row), format_bytes),
            cell(number_of(row), percent),
            *(cell(of_row(results, metric, row), percent) for metric in gains),
        ]
        for row in rows
    ]
    caption = (
        f"{results.record.balanced.focus} devices, by extra slots per layer and device for copies. best = the balancer with the least avg "
        "max · bytes = of these slots on all devices · gain = decrease of avg max compared with the row above, with its 95% interval."
    )
    yield Table(["extra slots", "best", "bytes", "avg max", "gain", "from", "to"], cells, labels=2, caption=caption)
