"""Expert buffering under a model's own backend: cache slots in place of the stacked tensors, and sentinel ids for all other experts.

T tokens, K choices, E experts, S cache slots, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from moeprof.huggingface.stack import ExpertStack
from moeprof.instrument.probe import region
from moeprof.store.buffered import BufferedStore


def computed_in_slots(
    experts: ExpertStack, store: BufferedStore, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, layer: str = ""
) -> Tensor:
    """Outputs (T, D) wave by wave, each by the module's own class and backend; ids from E on are in no wave.

    With K = 2 the sums of two have the bits of the whole module's; with more they may round differently.
    """
    num_experts, slotted = len(store.held), experts.with_weights(store.weights)
    store.expect(bounds(experts_TK, num_experts))
    y_TD = torch.zeros_like(x_TD, dtype=torch.promote_types(x_TD.dtype, torch.float32))
    for wave in store.waves():
        with region("experts", layer):
            if wave.experts is None:
                y_TD = slotted.computed(x_TD, experts_TK, weights_TK)
            else:
                ids_TK = slot_ids(wave.experts, num_experts, experts_TK)
                add_wave(y_TD, slotted, x_TD, ids_TK, weights_TK, store.num_slots)
    return y_TD.to(x_TD.dtype)


def bounds(experts_TK: Tensor, num_experts: int) -> list[int]:
    """Bounds (E + 1) of the rows that each expert has if rows are sorted by expert; waits for ids that are on a device."""
    counts_E = torch.bincount(experts_TK.flatten(), minlength=num_experts)[:num_experts]
    return [0, *counts_E.cumsum(0).tolist()]


def slot_ids(wave: Sequence[int], num_experts: int, experts_TK: Tensor) -> Tensor:
    """The slot of each choice (T, K); S, the sentinel, if its expert is not in the wave, which has an expert or -1 for each slot."""
    slot_of = [len(wave)] * (num_experts + 1)
    for slot, expert in enumerate(wave):
        if expert >= 0:
            slot_of[expert] = slot
    return torch.tensor(slot_of, device=experts_TK.device)[experts_TK.clamp(max=num_experts)]


def add_wave(y_TD: Tensor, slotted: ExpertStack, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, sentinel: int) -> None:
    """Adds the outputs of the tokens that have a choice in the wave."""
    outside_TK = ids_TK == sentinel
    here_N = (~outside_TK).any(dim=1).nonzero().flatten()
    weights_NK = weights_TK.masked_fill(outside_TK, 0)[here_N]
    y_TD.index_add_(0, here_N, slotted.computed(x_TD[here_N], ids_TK[here_N], weights_NK).to(y_TD.dtype))
