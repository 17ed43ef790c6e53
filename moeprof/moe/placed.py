"""Physical experts: what dispatch and exchange see where a placement says which rank holds which experts, copies included.

Physical ids count through the ranks in order. Which experts a rank holds is said here; where their weights come from, by a store.

T tokens, K choices, E experts, N ranks, L physical experts of each rank, P = N x L.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from moeprof.moe.routing import Routing, positions_in_expert


class PhysicalExperts:
    """One layer's experts as its ranks hold them, seen from one of them."""

    def __init__(self, ranks: Sequence[Sequence[int]], num_experts: int, rank: int, device: str = "cpu") -> None:
        """`ranks` are the logical experts of every rank, equally many, each expert at least once."""
        self.ranks, self.rank = ranks, rank
        logical_P = torch.tensor([expert for held in ranks for expert in held], device=device)
        self.copies_E = torch.bincount(logical_P, minlength=num_experts)
        self.first_E = self.copies_E.cumsum(0) - self.copies_E
        self.physical_P = torch.argsort(logical_P, stable=True)
        """The physical ids of expert 0's copies, then those of expert 1's, and so on."""
        self.num_physical = len(logical_P)
        self.copied = self.num_physical > num_experts

    @property
    def held(self) -> Sequence[int]:
        """The logical ids of this rank's physical experts, in their order."""
        return self.ranks[self.rank]

    def routed(self, routing: Routing, step: int) -> Routing:
        """The same decisions about physical experts.

        Choice i of an expert among this rank's goes to copy (i + step + rank) mod copies, first choices before second ones.
        """
        index_TK = self.first_E[routing.experts_TK]
        if self.copied:
            turn_TK = positions_in_expert(routing) + (step + self.rank)
            index_TK = index_TK + turn_TK % self.copies_E[routing.experts_TK]
        return replace(routing, experts_TK=self.physical_P[index_TK], num_experts=self.num_physical)
