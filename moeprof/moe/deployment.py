"""A placement is deployed: expert weights go from the ranks of contiguous placement to the ranks that the placement names.

N ranks, L physical experts of each rank, R experts that leave or arrive.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from moeprof.moe.layer import MoELayer
from moeprof.moe.physical_experts import PhysicalExperts
from moeprof.parallel.collectives import start_all_to_all
from moeprof.parallel.group import Group
from moeprof.records.recipe.variant import Variant
from moeprof.store.resident import ExpertWeights, ResidentStore


def deploy_placement(layer: MoELayer, variant: Variant, ranks: Sequence[Sequence[int]]) -> int:
    """Gives every rank its experts of a layer under `variant`, all resident; returns the bytes that came from other ranks."""
    placed = layer.place(variant, ranks)
    layer.stores[variant] = ResidentStore(moved_weights(layer.experts.weights, placed, layer.group))
    return moved_bytes(layer.experts.weights, placed)


def moved_weights(weights: ExpertWeights, placed: PhysicalExperts, group: Group) -> ExpertWeights:
    """The weights of this rank's physical experts (L, ...), in their order: one all-to-all for each of their tensors.

    Every rank calls this with its own share under contiguous placement, and keeps that.
    """
    share, device = weights.num_experts, weights.first.device
    leaving = [[expert % share for expert in held if expert // share == group.rank] for held in placed.ranks]
    sources = [expert // share for expert in placed.held]
    in_order = sources == sorted(sources)  # true for balancers, whose ids rise on every rank
    order_R = torch.tensor(sorted(range(len(sources)), key=sources.__getitem__), device=device)
    leaving_R = torch.tensor([expert for experts in leaving for expert in experts], dtype=torch.int64, device=device)
    sent, received = [len(experts) for experts in leaving], [sources.count(rank) for rank in range(group.size)]

    def arrived(whole: Tensor) -> Tensor:
        rows = whole.index_select(0, leaving_R)
        rows = rows if group.alone else start_all_to_all(rows, sent, received).wait()
        return rows if in_order else torch.empty_like(rows).index_copy_(0, order_R, rows)

    return weights.map(arrived)


def moved_bytes(weights: ExpertWeights, placed: PhysicalExperts) -> int:
    """Bytes of the weights that come to this rank from other ranks."""
    share = weights.num_experts
    remote_experts = sum(expert // share != placed.rank for expert in placed.held)
    return remote_experts * sum(whole[0].nbytes for whole in weights.values())
