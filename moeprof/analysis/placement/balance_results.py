"""What a replay of placements recorded: its balancers, layers and domain pairs, and the best balancer of each."""

from statistics import fmean

from moeprof.analysis.placement.choice import ROUNDING, least, makes_copies
from moeprof.analysis.placement.gain import Gain
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.metrics.point import format_point
from moeprof.records.run.replay import ALL, DECODE


def balancer_point(balancer: str, devices: int, tokens: int = 0) -> str:
    """The cell `point` of a balancer's number: `balancer=greedy;devices=8`; without a balancer `devices=8`.

    `tokens` is the number of tokens per step, if several are compared.
    """
    named = {"balancer": balancer, "devices": devices, "tokens": tokens}
    return format_point({name: str(value) for name, value in named.items() if value})


def balancer_value(results: RunMetrics, metric: str, phase: str, balancer: str, devices: int) -> float | None:
    """A balancer's number on so many devices over all layers, domains and ranks, or None."""
    return results.or_none(metric, phase=phase, point=balancer_point(balancer, devices))


def floor(results: RunMetrics, metric: str, phase: str, devices: int) -> float | None:
    """The least that any placement without copies can reach, or None."""
    return results.or_none(f"{metric}_floor", phase=phase, point=balancer_point("", devices))


def at_floor(results: RunMetrics, phase: str, devices: int) -> bool:
    """Whether contiguous placement already reaches the floor, so that nothing without copies is better, and the verdict is about that."""
    before = balancer_value(results, "avg_max_load", phase, CONTIGUOUS.name, devices)
    least_load = floor(results, "avg_max_load", phase, devices)
    known = before is not None and least_load is not None and before <= least_load * (1 + ROUNDING)
    return known and bool(candidates(results, phase, devices, copies=False))


def phases(results: RunMetrics) -> list[str]:
    """Phases that have device loads: decode before prefill, `all` last."""
    known = results.distinct("phase", "avg_max_load")
    return [phase for phase in (DECODE, *sorted({*known} - {DECODE, ALL}), ALL) if phase in known]


def balancers(results: RunMetrics, phase: str, devices: int) -> list[str]:
    """Balancers that have loads on so many devices, in the order of the request."""
    rows = results.rows("avg_max_load", phase=phase)
    known = {row.swept.get("balancer") for row in rows if row.swept.get("devices") == str(devices)}
    return [name for name in results.record.balanced.balancers if name in known]


def layers(results: RunMetrics, phase: str) -> list[str]:
    """Layers that have loads, in the order of execution."""
    known = results.distinct("layer", "avg_max_load", phase=phase)
    return [layer for layer in results.record.balanced.trace.layers if layer in known]


def domain_pairs(results: RunMetrics, phase: str) -> list[tuple[str, str]]:
    """(domain that was placed by, domain that was tested), if the trace has several domains."""
    keys = [row.key for row in results.rows("avg_max_load", phase=phase)]
    return list(dict.fromkeys((key.category, key.domain) for key in keys if key.category and key.domain))


def drift_pairs(results: RunMetrics, phase: str) -> list[str]:
    """Pairs of loads between which drift was computed."""
    return results.distinct("category", "load_divergence", phase=phase)


def untested(results: RunMetrics, phase: str) -> bool:
    """Whether placements were judged on the totals that they were made from, because there are no other steps."""
    history, test = map(results.at(phase=phase).or_none, ("history_steps", "test_steps"))
    return history is not None and test is None


def gain_at(results: RunMetrics, phase: str, point: str = "", tokens: int = 0) -> Gain | None:
    """The recorded gain over contiguous placement; None if no step was left to test on."""
    value, low, high = (results.or_none(f"load_gain{end}", phase=phase, point=point) for end in ("", "_low", "_high"))
    steps = results.or_none("test_steps", phase=phase, point=format_point({"tokens": tokens} if tokens else {}))
    return None if value is None or low is None or high is None or steps is None else Gain(value, low, high, int(steps))


def compared(results: RunMetrics, phase: str, devices: int) -> int:
    """The number of balancers for all of which the intervals of gains hold at once; 1 if the run recorded none."""
    return int(results.or_none("compared_gains", phase=phase, point=balancer_point("", devices)) or 1)


def best(results: RunMetrics, phase: str, devices: int, *, copies: bool, tokens: int = 0) -> tuple[str, Gain] | None:
    """The balancer with the largest gain among those that make copies, or that make none; the simplest of equal ones.

    `tokens` is the number of tokens per step, if several are compared.
    """
    found = {
        name: gain
        for name in candidates(results, phase, devices, copies=copies)
        if (gain := gain_at(results, phase, balancer_point(name, devices, tokens), tokens)) is not None
    }
    name = least({name: 1 - gain.value for name, gain in found.items()})
    return (name, found[name]) if name else None


def step_sizes(results: RunMetrics, phase: str, *, copies: bool) -> list[tuple[int, str, Gain]]:
    """For each number of tokens per step, rising: the best balancer with or without copies, and its gain."""
    found = []
    for tokens in sorted(set(results.record.balanced.tokens_per_step)):
        one = best(results, phase, results.record.balanced.focus, copies=copies, tokens=tokens)
        found += [(tokens, *one)] if one else []
    return found


def candidates(results: RunMetrics, phase: str, devices: int, *, copies: bool) -> list[str]:
    """Balancers other than contiguous that make copies, or that make none."""
    names = balancers(results, phase, devices)
    balance = results.record.balanced
    return [name for name in names if name != CONTIGUOUS.name and makes_copies(balance, name, devices) == copies]


def load_elsewhere(results: RunMetrics, phase: str, balancer: str, devices: int) -> float | None:
    """Avg max load if one domain decides the placement and another one is tested, mean over pairs; None without pairs."""
    point = balancer_point(balancer, devices)
    pairs = [pair for pair in domain_pairs(results, phase) if pair[0] != pair[1]]
    loads = [results.or_none("avg_max_load", phase=phase, point=point, domain=test, category=past) for past, test in pairs]
    known = [load for load in loads if load is not None]
    return fmean(known) if known else None


def best_elsewhere(results: RunMetrics, phase: str, devices: int, *, copies: bool) -> str | None:
    """The balancer with the smallest `load_elsewhere`; the simplest of equal ones."""
    means = {
        name: mean
        for name in candidates(results, phase, devices, copies=copies)
        if (mean := load_elsewhere(results, phase, name, devices)) is not None
    }
    return least(means)
