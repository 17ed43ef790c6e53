"""Routing traces as the records that SGLang's mode `per_token` dumps, with the identity as map of physical experts.

R rows and T tokens of a step, L layers of the model up to the last with experts, K choices.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Flags, Ints
from moeprof.records.errors import UsageError
from moeprof.records.traces.choices import NO_EXPERT
from moeprof.records.traces.routing_trace import RoutingTrace

WIDTH = 8
"""The choices of a token that the recorder has place for."""

EXTEND, DECODE, MIXED = 1, 2, 3
"""Values of SGLang's `ForwardMode`."""

ROWS = ("sequence", "position", "token_id", "slot", "expert")
PassRows = tuple[RoutingTrace, Flags]
"""A trace, and which of its rows are of a step."""


def records_of(traces: Sequence[RoutingTrace], path: Path, *, shared_steps: bool) -> dict[str, Any]:
    """The dump, whose passes are in the order of their steps, or prompts first if each phase counts its own.

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
    passes: dict[tuple[bool, int], list[PassRows]] = {}
    for trace in traces:
        decoded = trace.header.phase == "decode" and not shared_steps
        for step in np.unique(trace.column("step")):
            passes.setdefault((decoded, int(step)), []).append((trace, trace.column("step") == step))
    records = [record_of(passes[key], (num_layers, num_experts), number) for number, key in enumerate(sorted(passes))]
    identity_LP = np.tile(np.arange(num_experts), (num_layers, 1))
    return {"records": records, "last_physical_to_logical_map": identity_LP}


def record_of(parts: Sequence[PassRows], shape: tuple[int, int], number: int) -> dict[str, Any]:
    """The record of one step; its tokens are in order of sequence and position, those of prompts before decoded ones."""
    rows = {name: of_rows(parts, partial(RoutingTrace.column, name=name)) for name in ROWS}
    decoded_R = of_rows(parts, lambda trace: np.full(len(trace), trace.header.phase == "decode"))
    layer_R = of_rows(parts, numbers_of_layers)
    keys = np.stack([decoded_R, rows["sequence"], rows["position"]])
    places, first_T, token_R = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    ids_LTW = np.full((shape[0], places.shape[1], WIDTH), NO_EXPERT, np.int32)
    ids_LTW[layer_R, token_R.ravel(), rows["slot"]] = rows["expert"]
    prompts_T = places[0] == 0
    return {
        "forward_pass_id": number,
        "rank": 0,
        "gatherer_key": "primary",
        "input_ids": rows["token_id"][first_T].tolist(),
        "positions": places[2].tolist(),
        "extend_seq_lens": np.unique(places[1][prompts_T], return_counts=True)[1].tolist() if prompts_T.any() else None,
        "forward_mode": EXTEND if prompts_T.all() else MIXED if prompts_T.any() else DECODE,
        "topk_ids_of_layer": ids_LTW,
        "misc_objects": [],
        "global_physical_count": counted(layer_R, rows["expert"], shape),
    }


def of_rows(parts: Sequence[PassRows], values: Callable[[RoutingTrace], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """A value of every marked row of all parts, (R,)."""
    return np.concatenate([values(trace)[chosen_R] for trace, chosen_R in parts])


def numbers_of_layers(trace: RoutingTrace) -> Ints:
    """The number of the layer of every row, (R,)."""
    code_R, names = trace.codes("layer")
    return np.array([int(name) for name in names])[code_R]


def counted(layer_R: Ints, expert_R: Ints, shape: tuple[int, int]) -> Ints:
    """How often every expert was chosen in every layer, (L, E)."""
    at_R = np.ravel_multi_index((layer_R, expert_R), shape)
    return np.bincount(at_R, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int32)
