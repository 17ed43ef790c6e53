"""Placements that were judged on the totals that they were made from, because there are no other steps."""

from collections.abc import Iterator

from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement.balance_results import balancer_value
from moeprof.analysis.placement.choice import least
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.reporters.cells import percent, plural


def totals_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """The load of the busiest device before and after, with the lower bound; nothing if steps were held out."""
    if not balance_results.untested(results, phase):
        return
    devices = results.record.balanced.focus
    names = [name for name in balance_results.balancers(results, phase, devices) if name != CONTIGUOUS.name]
    loads = {name: float(balancer_value(results, "avg_max_load", phase, name, devices) or 0.0) for name in names}
    before = balancer_value(results, "avg_max_load", phase, CONTIGUOUS.name, devices)
    floor = balance_results.floor(results, "avg_max_load", phase, devices)
    under = f", {percent(before)} under contiguous placement" if before is not None else ""
    limits = f"ideal {percent(1 / devices)}" + (f", floor without copies {percent(floor)}" if floor is not None else "")
    if loads:
        best = least(loads) or ""
        placed = f"{best}{with_slots(results, phase, best)}"
        yield (
            f"Placement ({devices} devices): computed and judged on the same totals, because there are no held-out steps. The "
            f"busiest device gets {percent(loads[best])} of all choices under {placed}{under} ({limits}). What remains of that on "
            "other text is unknown."
        )


def with_slots(results: RunMetrics, phase: str, name: str) -> str:
    """` with one extra slot per device`; nothing if the balancer makes no copies."""
    devices = results.record.balanced.focus
    slots = balancer_value(results, "device_slots", phase, name, devices) or 0
    extra = int(slots) - -(-results.record.balanced.trace.num_experts // devices)
    return f" with {extra if extra > 1 else 'one'} extra {plural(extra, 'slot', 'slots')} per device" if extra > 0 else ""
