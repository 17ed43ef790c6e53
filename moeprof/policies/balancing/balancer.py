"""What a balancer is: from what is known of a layer's past, and a cluster, to the experts on every device.

Shape suffixes: E experts, D devices, S slots of a device, P = D x S slots of the cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Floats, Ints

DIGITS = 12
"""Loads are compared so far: sums that are equal on paper are ties, whatever the order in which they were added up."""


@dataclass(frozen=True, eq=False)
class History:
    """A layer's past."""

    shares_E: Floats
    """Abar[m]: the share of a step's choices that an expert takes, mean over steps, or any multiple of it."""
    correlation_EE: Floats
    """Pearson's r of two experts' shares over steps; 0 where it is not defined, as for a constant share."""

    @classmethod
    def of_totals(cls, counts_E: npt.ArrayLike) -> "History":
        """Of which nothing but the sums is known."""
        shares_E = np.asarray(counts_E, np.float64)
        return cls(shares_E, np.zeros((len(shares_E), len(shares_E))))

    @property
    def num_experts(self) -> int:
        """E."""
        return len(self.shares_E)

    @property
    def weights_E(self) -> Floats:
        """The shares, which sum to 1; all alike in a layer that was never active."""
        total = self.shares_E.sum()
        return self.shares_E / total if total else np.full(self.num_experts, 1 / self.num_experts)


@dataclass(frozen=True)
class Cluster:
    """Devices of equal size; node n holds the n-th of `num_nodes` equal blocks of them."""

    num_devices: int
    num_slots: int
    """Of one layer on each device."""
    num_nodes: int = 1
    num_groups: int = 0
    """Blocks of neighbouring experts that stay on one node; 0 where every expert goes its own way."""

    @property
    def total_slots(self) -> int:
        """P."""
        return self.num_devices * self.num_slots


Slots = Ints
"""(D, S): the expert in every slot of every device."""


@dataclass(frozen=True)
class Balancer:
    """`place` may count on a cluster that `registry.placed` has checked."""

    name: str
    place: Callable[[History, Cluster], Slots]
    replicates: bool = False
    """Whether it fills slots beyond one per expert with copies."""
    by_node: bool = False
    """Whether it looks at the nodes."""
    repeats: bool = True
    """Whether two copies of an expert may stand on one device."""
