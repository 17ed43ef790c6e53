"""The eviction policy and number of slots that a replay recommends, and the sizes at which other policies are better."""

from dataclasses import dataclass

from moeprof.analysis.caching import replay_results
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.eviction.registry import DEFAULT, needs_future

LOWER_BOUND = "min"
"""MIN (Belady): no policy without bypass has fewer misses."""

CLOSE = 0.01
"""Policies whose miss rates differ by less are reported as about the same."""


@dataclass(frozen=True)
class Advice:
    """The recommended policy and size for one phase."""

    phase: str
    policy: str
    size: int
    at_knee: bool
    """Whether the size is the knee of the miss-rate curve; if there is no knee, it is the largest replayed size."""
    miss_rate: float
    rival: str
    """The next best online policy at this size; empty if there is none."""
    rival_rate: float
    better_below: tuple[int, str] | None
    """The largest smaller size at which another policy has fewer misses, and that policy."""
    better_above: tuple[int, str] | None
    """The smallest larger size at which another policy has fewer misses, and that policy."""


def advise(results: RunMetrics, phase: str) -> Advice | None:
    """The best online policy at the knee of the lowest online miss rates; None if no online policy was replayed.

    Among policies with equal miss rates the paper's choice comes first, then the order of the request.
    """
    online = [policy for policy in replay_results.policies(results) if not needs_future(policy)]
    if not online:
        return None
    found = replay_results.knee(results, phase)
    size = found or results.record.replayed.sizes[-1]
    order = sorted(ranked(results, phase, size, online), key=lambda one: (one[0], one[1] != DEFAULT))
    if not order:
        return None
    (rate, policy), (rival_rate, rival) = order[0], order[1] if len(order) > 1 else (0.0, "")
    elsewhere = [
        (other, best) for other in results.record.replayed.sizes if (best := better(results, phase, other, policy, online))
    ]
    return Advice(
        phase=phase,
        policy=policy,
        size=size,
        at_knee=found is not None,
        miss_rate=rate,
        rival=rival,
        rival_rate=rival_rate,
        better_below=next((pair for pair in reversed(elsewhere) if pair[0] < size), None),
        better_above=next((pair for pair in elsewhere if pair[0] > size), None),
    )


def ranked(results: RunMetrics, phase: str, size: int, policies: list[str]) -> list[tuple[float, str]]:
    """Miss rates at a size with their policies, in the given order."""
    rates = ((replay_results.policy_value(results, "miss_rate", phase, policy, size), policy) for policy in policies)
    return [(rate, policy) for rate, policy in rates if rate is not None]


def better(results: RunMetrics, phase: str, size: int, policy: str, online: list[str]) -> str:
    """The policy with the fewest misses at a size if it has fewer than `policy`, else an empty string."""
    rates = {name: rate for rate, name in ranked(results, phase, size, online)}
    best = min(rates, key=lambda name: rates[name], default="")
    return best if best and rates[best] < rates.get(policy, 1) else ""


def size_for(results: RunMetrics, phase: str, policy: str, transfer_ns: float) -> int | None:
    """The smallest size at which the copies of a step take at most this long; None if no replayed size is enough."""
    return next(
        (size for size, time in replay_results.curve(results, "transfer_time", phase, policy) if time <= transfer_ns), None
    )
