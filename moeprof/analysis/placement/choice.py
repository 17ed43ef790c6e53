"""Which balancers compete with each other, and which one is named if several reach the same load."""

from collections.abc import Collection, Mapping
from math import isclose

from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.registry import BALANCERS
from moeprof.records.run.replay import BalanceRequest

ROUNDING = 1e-9
"""Loads whose relative difference is at most this are equal."""


def makes_copies(balance: BalanceRequest, name: str, devices: int) -> bool:
    """Whether a balancer places copies on so many devices: it can, and it has more slots than there are experts."""
    return BALANCERS[name].replicates and bool(balance.replicas or balance.trace.num_experts % devices)


def least(loads: Mapping[str, float]) -> str | None:
    """The balancer with the least load; of equal ones the first of the registry, in which those come first that need no history."""
    lowest = min(loads.values(), default=0.0)
    return next((name for name in BALANCERS if name in loads and isclose(loads[name], lowest, rel_tol=ROUNDING)), None)


def rivals(names: Collection[str]) -> int:
    """The number of balancers that are compared with contiguous placement."""
    return len({*names} - {CONTIGUOUS.name})
