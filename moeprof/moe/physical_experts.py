"""Physical experts: which experts dispatch and exchange see if a placement assigns them to ranks, replicas included.

Physical ids count through the ranks in order. A placement decides which experts a rank holds, a store where their weights are.

T tokens, K choices, E experts, N ranks, L physical experts of each rank, P = N x L.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from moeprof.moe.routing import Routing, positions_in_expert


class PhysicalExperts:
    """One layer's experts as the ranks hold them, for use on one rank."""

    def __init__(self, ranks: Sequence[Sequence[int]], num_experts: int, rank: int, device: str = "cpu") -> None:
        """`ranks` are the logical experts of every rank, equally many, each expert at least once."""
        self.ranks, self.rank = ranks, rank
        logical_P = torch.tensor([expert for held in ranks for expert in held], device=device)
        self.copies_E = torch.bincount(logical_P, minlength=num_experts)
        self.first_E = self.copies_E.cumsum(0) - self.copies_E
        self.physical_P = torch.argsort(logical_P, stable=True)
        """The physical ids of expert 0's replicas, then those of expert 1's, and so on."""
        self.num_physical = len(logical_P)
        self.copied = self.num_physical > num_experts

    @property
    def held(self) -> Sequence[int]:
        """The logical ids of this rank's physical experts, in their order."""
        return self.ranks[self.rank]

    def routed(self, routing: Routing, step: int) -> Routing:
        """The same decisions with physical ids.

        Choice i of an expert on this rank goes to replica (i + step + rank) mod replicas; first choices count before second
        ones. If two ranks both hold [0, 1], the choices of expert 0 in step 0 go to these physical experts:
            0 2 0   on rank 0
            2 0 2   on rank 1
        """
        index_TK = self.first_E[routing.experts_TK]
        if self.copied:
            replica_TK = positions_in_expert(routing) + (step + self.rank)
            index_TK = index_TK + replica_TK % self.copies_E[routing.experts_TK]
        return replace(routing, experts_TK=self.physical_P[index_TK], num_experts=self.num_physical)
