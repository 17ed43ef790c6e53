"""A balancer: from the history of a layer, and a cluster, to the experts on every device.

Shape suffixes: E experts, D devices, S slots of a device, P = D x S slots of the cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Floats, Ints

DIGITS = 12
"""Decimal digits to which loads are compared, so that ties do not depend on the order of additions."""


@dataclass(frozen=True, eq=False)
class History:
    """Statistics of the loads of a layer in earlier steps."""

    shares_E: Floats
    """Abar[m]: the share of a step's choices that an expert takes, mean over steps, or any multiple of it."""
    correlation_EE: Floats
    """Pearson's r of two experts' shares over steps; 0 if it is undefined, as for a constant share."""
    deviation_E: Floats
    """The standard deviation of an expert's share over steps, in the unit of `shares_E`."""
    choices: float = inf
    """Choices of a step, mean over steps; infinite if copies of an expert take exactly equal parts of its load."""

    @classmethod
    def of_totals(cls, counts_E: npt.ArrayLike) -> "History":
        """The history of a layer of which only the total loads are known: they are taken for constant."""
        shares_E = np.asarray(counts_E, np.float64)
        return cls(shares_E, np.zeros((len(shares_E), len(shares_E))), np.zeros(len(shares_E)))

    @property
    def num_experts(self) -> int:
        """The number of experts, E."""
        return len(self.shares_E)

    @property
    def weights_E(self) -> Floats:
        """The shares, scaled to sum 1; all equal in a layer that was never active."""
        total = self.shares_E.sum()
        return self.shares_E / total if total else np.full(self.num_experts, 1 / self.num_experts)

    @property
    def spreads_E(self) -> Floats:
        """The standard deviations in the unit of `weights_E`; 0 in a layer that was never active."""
        return self.deviation_E / (self.shares_E.sum() or 1)


@dataclass(frozen=True)
class Cluster:
    """Devices of equal size; node n holds the n-th of `num_nodes` equal blocks of them."""

    num_devices: int
    num_slots: int
    """Slots for experts of one layer on each device."""
    num_nodes: int = 1
    num_groups: int = 0
    """Number of groups of consecutive experts that stay on one node; 0 if every expert is placed by itself."""

    @property
    def total_slots(self) -> int:
        """Slots of the whole cluster, P."""
        return self.num_devices * self.num_slots


Slots = Ints
"""The expert in each slot of each device, (D, S)."""


@dataclass(frozen=True)
class Balancer:
    """A placement algorithm; `place` may rely on the checks of `registry.placed`."""

    name: str
    place: Callable[[History, Cluster], Slots]
    replicates: bool = False
    """Whether it fills more slots than experts with replicas."""
    by_node: bool = False
    """Whether it takes nodes into account."""
    repeats: bool = True
    """Whether two replicas of an expert may share a device."""
    fixed: bool = False
    """Whether loads have no influence, so that placing again moves nothing."""
