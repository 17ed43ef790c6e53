"""Counts of what became of the choices of a call; they add up to the rows of the batch times K, or there is an error.

T: rows of a call, padding included. K: experts per row. E: experts of the layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from moeprof.huggingface.adapters.adapter import Kept
from moeprof.huggingface.capture import Call
from moeprof.records.errors import MoeprofError


class Tally(NamedTuple):
    """How many of the choices of a call there are of each kind."""

    routed: int
    padding: int
    skipped: int
    zero_compute: int
    dropped: int
    sentinel: int


def tally(call: Call, real_T: Tensor | None = None) -> Tally:
    """The choices by kind; all choices of rows that are padding count as padding only. `real_T` says which rows are tokens.

    MoeprofError unless there are K choices for each row of the batch, and each of them is an expert with a finite weight.
    """
    check(call, real_T)
    return counted(call.kept_TK, real_T)


def counted(kept_TK: Tensor, real_T: Tensor | None = None) -> Tally:
    """The choices (values of `Kept`) by kind."""
    mine_TK = kept_TK if real_T is None else kept_TK[real_T.to(kept_TK.device)]
    numbers = torch.bincount(mine_TK.reshape(-1).long(), minlength=len(Kept)).tolist()
    return Tally(
        routed=numbers[Kept.ROUTED],
        padding=kept_TK.numel() - mine_TK.numel(),
        skipped=numbers[Kept.SKIPPED],
        zero_compute=numbers[Kept.ZERO_COMPUTE],
        dropped=numbers[Kept.DROPPED],
        sentinel=numbers[Kept.SENTINEL],
    )


def computed_rows(call: Call, counts: Tally) -> int:
    """The rows that the model's own experts compute in a call, those of padding included."""
    return call.site.adapter.computed_rows(len(call.experts_TK), counts.routed + counts.padding, call.site.size)


def expert_counts(call: Call, real_T: Tensor | None = None) -> Tensor:
    """The choices that each expert computed, int64 [E], without padding."""
    routed_TK = call.kept_TK == Kept.ROUTED
    if real_T is not None:
        routed_TK = routed_TK & real_T.to(routed_TK.device)[:, None]
    return torch.bincount(call.experts_TK[routed_TK], minlength=call.site.num_experts)


def check(call: Call, real_T: Tensor | None) -> None:
    """MoeprofError if the call is not one of K experts for each row of the batch, or a weight is not finite."""
    num_rows, top_k = call.experts_TK.shape
    expected = (num_rows if real_T is None else len(real_T), call.site.top_k or top_k)
    if (num_rows, top_k) != expected:
        raise MoeprofError(
            f"layer {call.site.layer}: {num_rows} rows with {top_k} experts each reached its experts, the batch has {expected[0]} rows "
            f"for {expected[1]} experts each",
            "Give the mask of the rows that reach these experts; the routing of this layer cannot be counted otherwise.",
        )
    is_expert_TK = (call.experts_TK >= 0) & (call.experts_TK < call.site.num_experts + call.site.num_zero)
    if unknown := int((~is_expert_TK & (call.kept_TK != Kept.SENTINEL)).sum()):
        raise MoeprofError(
            f"layer {call.site.layer}: {unknown} of {num_rows * top_k} choices are of no expert of this layer",
            f"Its experts are 0 to {call.site.num_experts - 1}: load the checkpoint again, its router may be damaged.",
        )
    weights_TK = call.weights_TK if real_T is None else call.weights_TK[real_T.to(call.weights_TK.device)]
    if infinite := int((~torch.isfinite(weights_TK)).sum()):
        raise MoeprofError(
            f"layer {call.site.layer}: {infinite} of {weights_TK.numel()} weights that the experts received are not finite",
            "The hidden states overflow: check the checkpoint, or load it with --dtype float32.",
        )
