"""Which policy and how many slots a replay speaks for, and what would make it speak for others."""

from dataclasses import dataclass

from moeprof.analysis.caching import replay_results
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.eviction.registry import DEFAULT, needs_future

FLOOR = "min"
"""No policy that always admits misses less (Belady)."""

CLOSE = 0.01
"""Of the accesses: policies nearer than this are told to be alike."""


@dataclass(frozen=True)
class Advice:
    """A policy and a size for one phase."""

    phase: str
    policy: str
    size: int
    at_knee: bool
    """Whether the size is where the curve bends; else it is the largest, for every slot pays alike or too few sizes are known."""
    miss_rate: float
    rival: str
    """The next best policy online at this size; empty where there is no other."""
    rival_rate: float
    better_below: tuple[int, str] | None
    """The largest smaller size at which another policy misses less, and which."""
    better_above: tuple[int, str] | None
    """The smallest larger one."""


def advise(results: RunMetrics, phase: str) -> Advice | None:
    """The best policy that needs no future, at the knee of the fewest misses online; None where no such policy has numbers.

    Of policies that miss alike the paper's choice comes first, then whatever was asked for first.
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
    """Miss rates at a size, in the order of the policies."""
    rates = ((replay_results.policy_value(results, "miss_rate", phase, policy, size), policy) for policy in policies)
    return [(rate, policy) for rate, policy in rates if rate is not None]


def better(results: RunMetrics, phase: str, size: int, policy: str, online: list[str]) -> str:
    """The policy that misses fewest at a size and fewer than `policy`; empty where none does."""
    rates = {name: rate for rate, name in ranked(results, phase, size, online)}
    best = min(rates, key=lambda name: rates[name], default="")
    return best if best and rates[best] < rates.get(policy, 1) else ""


def size_for(results: RunMetrics, phase: str, policy: str, transfer_ns: float) -> int | None:
    """The smallest size at which a step's copies take no longer than this; None where no replayed size does."""
    return next(
        (size for size, time in replay_results.curve(results, "transfer_time", phase, policy) if time <= transfer_ns), None
    )
