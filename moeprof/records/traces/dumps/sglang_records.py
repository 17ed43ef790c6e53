"""Routing traces as the records that SGLang's mode `per_token` dumps, with the identity as map of physical experts.

T tokens of a step, L layers of the model up to the last with experts, K choices.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.errors import UsageError
from moeprof.records.traces.choices import NO_EXPERT
from moeprof.records.traces.routing_trace import RoutingTrace

WIDTH = 8
"""The choices of a token that the recorder has place for."""

EXTEND, DECODE = 1, 2
"""Values of SGLang's `ForwardMode`."""


def records_of(traces: Sequence[RoutingTrace], path: Path, *, as_logged: bool) -> dict[str, Any]:
    """The dump, whose passes are in the order of the log, or prompts first if each phase counts its own steps.

    UsageError if a token has more choices than the recorder has place for, or a layer has no number.
    """
    if (top_k := max(trace.header.top_k for trace in traces)) > WIDTH:
        raise UsageError(
            f"{path}: {top_k} choices of a token", f"SGLang's recorder has place for {WIDTH}; write another format."
        )
    names = [name for trace in traces for name in trace.header.layers]
    if unnumbered := [name for name in names if not name.isdecimal()]:
        raise UsageError(
            f"{path}: layer {unnumbered[0]!r} has no number", "SGLang's layers have numbers; write another format."
        )
    num_layers, num_experts = max(map(int, names)) + 1, max(trace.header.num_experts for trace in traces)
    passes = [(int(step), trace) for trace in traces for step in np.unique(trace.column("step"))]
    passes.sort(key=lambda one: one[0] if as_logged else one[1].header.phase == "decode")
    records = [
        record_of(trace, trace.column("step") == step, (num_layers, num_experts), number)
        for number, (step, trace) in enumerate(passes)
    ]
    identity_LP = np.tile(np.arange(num_experts), (num_layers, 1))
    return {"records": records, "last_physical_to_logical_map": identity_LP}


def record_of(trace: RoutingTrace, chosen_R: Any, shape: tuple[int, int], number: int) -> dict[str, Any]:
    """The record of one step, the rows of which are marked; its tokens are in order of sequence and position."""
    keys = np.stack([trace.column(name)[chosen_R] for name in ("sequence", "position")])
    places, first_T, token_R = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    code_R, names = trace.codes("layer")
    layer_R = np.array([int(name) for name in names])[code_R[chosen_R]]
    expert_R = trace.column("expert")[chosen_R]
    ids_LTW = np.full((shape[0], places.shape[1], WIDTH), NO_EXPERT, np.int32)
    ids_LTW[layer_R, token_R.ravel(), trace.column("slot")[chosen_R]] = expert_R
    prompt = trace.header.phase != "decode"
    return {
        "forward_pass_id": number,
        "rank": 0,
        "gatherer_key": "primary",
        "input_ids": trace.column("token_id")[chosen_R][first_T].tolist(),
        "positions": places[1].tolist(),
        "extend_seq_lens": np.unique(places[0], return_counts=True)[1].tolist() if prompt else None,
        "forward_mode": EXTEND if prompt else DECODE,
        "topk_ids_of_layer": ids_LTW,
        "misc_objects": [],
        "global_physical_count": counted(layer_R, expert_R, shape),
    }


def counted(layer_R: Ints, expert_R: Ints, shape: tuple[int, int]) -> Ints:
    """How often every expert was chosen in every layer, (L, E)."""
    at_R = np.ravel_multi_index((layer_R, expert_R), shape)
    return np.bincount(at_R, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int32)
