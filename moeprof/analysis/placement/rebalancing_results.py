"""What a replay recorded of placements that are made again along the trace: its strategies, and the ones that a verdict is about."""

from moeprof.analysis.placement import choice
from moeprof.analysis.placement.gain import FEWEST, Gain
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.number import RecordedNumber, number_of
from moeprof.records.metrics.row import RecordedRow

SCHEDULES = ("fixed", "once", "full", "incremental")


def strategies(results: RunMetrics, phase: str) -> list[RecordedRow]:
    """The row `rebalanced_load` of every strategy, in the order of the request; each has its balancer and schedule in `swept`."""
    return results.rows("rebalanced_load", phase=phase)


def value(results: RunMetrics, metric: str, phase: str, point: str) -> RecordedNumber | None:
    """A number of the strategy at this point, or None."""
    rows = results.rows(metric, phase=phase, point=point)
    return number_of(rows[0]) if rows else None


def ends(results: RunMetrics, metric: str, phase: str, point: str) -> Gain | None:
    """A number with the ends of its interval and the judged steps, or None."""
    found = [value(results, f"{metric}{end}", phase, point) for end in ("", "_low", "_high")]
    steps = results.or_none("rebalance_steps", phase=phase)
    known = [one for one in found if one is not None]
    return Gain(known[0], known[1], known[2], int(steps)) if len(known) == 3 and steps is not None else None


def compared(results: RunMetrics, phase: str) -> int:
    """The number of repeated strategies for all of which the intervals of their gains hold at once; 1 if the run recorded none."""
    return int(results.or_none("compared_repeats", phase=phase) or 1)


def reference(results: RunMetrics, phase: str, point: str) -> str:
    """The balancer of the best placement that is made once, which a repeated strategy is compared with."""
    return next((row.key.category for row in results.rows("repeat_gain", phase=phase, point=point)), "")


def repeated(results: RunMetrics, phase: str, *, copies: bool) -> list[RecordedRow]:
    """The strategies that place again, with or without copies."""
    return [row for row in strategies(results, phase) if "every" in row.swept and makes_copies(results, row) == copies]


def once(results: RunMetrics, phase: str, *, copies: bool) -> list[RecordedRow]:
    """The strategies that place once, with or without copies."""
    return [row for row in strategies(results, phase) if "every" not in row.swept and makes_copies(results, row) == copies]


def makes_copies(results: RunMetrics, row: RecordedRow) -> bool:
    """Whether the balancer of a strategy makes copies."""
    balance = results.record.balanced
    return choice.makes_copies(balance, row.swept["balancer"], balance.focus)


def judged(results: RunMetrics, phase: str, *, copies: bool) -> RecordedRow | None:
    """The repeated strategy that the verdict is about: of the largest net gain if there are any, or else `cheapest`; None without any."""
    found = repeated(results, phase, copies=copies)
    net = {row.key.point: one.value for row in found if (one := ends(results, "repeat_net_gain", phase, row.key.point))}
    if net:
        return max(found, key=lambda row: net.get(row.key.point, float("-inf")))
    return cheapest(results, phase, found)


def cheapest(results: RunMetrics, phase: str, found: list[RecordedRow]) -> RecordedRow | None:
    """The strategy with the largest gain over placing once; if that is measurable, the one that pays off first."""
    gains = {row.key.point: one for row in found if (one := ends(results, "repeat_gain", phase, row.key.point))}
    if not gains:
        return None
    best = max(found, key=lambda row: gains[row.key.point].value)
    if gains[best.key.point].low <= 0:
        return best
    times = {point: value(results, "break_even_time", phase, point) for point in gains}
    known = {point: time for point, time in times.items() if time is not None}
    return min((row for row in found if row.key.point in known), key=lambda row: known[row.key.point], default=best)


def shown(results: RunMetrics, phase: str) -> list[RecordedRow]:
    """The strategies of the table: fixed ones, and with and without copies the best one of each schedule and number of steps."""
    rows = [row for row in strategies(results, phase) if row.swept["schedule"] == "fixed"]
    for copies in (False, True):
        groups: dict[tuple[str, str], list[RecordedRow]] = {}
        for row in strategies(results, phase):
            if makes_copies(results, row) == copies and row.swept["schedule"] != "fixed":
                groups.setdefault((row.swept["schedule"], row.swept.get("every", "")), []).append(row)
        rows += [min(groups[key], key=lambda row: row.value) for key in sorted(groups, key=order)]
    return rows


def order(key: tuple[str, str]) -> tuple[int, int]:
    """A sorting key of schedule and number of steps: as in `SCHEDULES`, then by number."""
    return SCHEDULES.index(key[0]), int(key[1] or 0)


def repeat_verdict(gain: Gain, net: Gain | None) -> str:
    """Whether placing again is worth it, as far as the judged steps and the given times allow."""
    if gain.steps < FEWEST:
        return "too little evidence"
    if gain.high < 0:
        return "worse than placing once"
    if gain.low <= 0:
        return "no measurable gain"
    if net is None:
        return "a measurable gain"
    return "worth it" if net.low > 0 else "not worth its moves" if net.high < 0 else "no measurable net gain"
