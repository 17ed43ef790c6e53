"""What a replay of caches recorded: its policies, sizes and layers, and miss curves over the sizes."""

from collections.abc import Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.point import format_point
from moeprof.records.run.replay import ALL, DECODE

Curve = Sequence[tuple[int, float]]
"""Sizes, rising, each with a value."""


def size_point(results: RunMetrics, size: int) -> str:
    """The cell `point` of a number that depends on the size only: `slots=16`."""
    return format_point({results.record.replayed.swept: size})


def policy_point(results: RunMetrics, policy: str, size: int) -> str:
    """The cell `point` of a policy's number at a size: `policy=lru;slots=16`."""
    return format_point({"policy": policy, results.record.replayed.swept: size})


def phases(results: RunMetrics) -> list[str]:
    """Phases that have accesses: decode first, `all` last."""
    known = results.distinct("phase", "expert_accesses")
    order = [DECODE, *(phase for phase in known if phase not in (DECODE, ALL)), ALL]
    return [phase for phase in order if phase in known]


def policies(results: RunMetrics) -> list[str]:
    """Policies that have miss rates, in the order of the request."""
    known = {row.swept.get("policy") for row in results.rows("miss_rate")}
    return [policy for policy in results.record.replayed.policies if policy in known]


def landmarks(results: RunMetrics) -> list[int]:
    """Sizes at which single layers have miss rates, rising."""
    sizes = (row.swept.get(results.record.replayed.swept, "") for row in results.rows("miss_rate") if row.key.layer)
    return sorted({int(size) for size in sizes if size.isdecimal()})


def parts(results: RunMetrics) -> list[tuple[str, str]]:
    """Every layer with each of its domains; the domain is empty if the trace has only one."""
    keys = [row.key for row in results.rows("expert_accesses") if row.key.layer]
    several = len({key.domain for key in keys} - {""}) > 1
    return list(dict.fromkeys((key.layer, key.domain) for key in keys if bool(key.domain) == several))


def curve(results: RunMetrics, metric: str, phase: str, policy: str) -> Curve:
    """A metric of a policy over all sizes at which it was recorded."""
    return results.curve(metric, results.record.replayed.swept, other={"policy": policy}, phase=phase)


def policy_value(results: RunMetrics, metric: str, phase: str, policy: str, size: int) -> float | None:
    """A policy's number at one size over all layers and domains, or None."""
    return results.or_none(metric, phase=phase, point=policy_point(results, policy, size))


def worst(results: RunMetrics, phase: str, policy: str, size: int) -> tuple[float, str, str] | None:
    """The largest miss rate of any layer and domain, with both names; None at a size without rates of single layers."""
    point = policy_point(results, policy, size)
    rates = [
        (rate, layer, domain)
        for layer, domain in parts(results)
        if (rate := results.or_none("miss_rate", phase=phase, point=point, layer=layer, domain=domain)) is not None
    ]
    return max(rates, key=lambda found: found[0], default=None)


def knee(results: RunMetrics, phase: str, policy: str = "") -> int | None:
    """The knee of a policy's miss curve; without a policy, that of the fewest misses of any online policy."""
    metric = "knee_budget" if results.record.replayed.budgets else "knee_slots"
    found = results.or_none(metric, phase=phase, point=format_point({"policy": policy} if policy else {}))
    return None if found is None else int(found)
