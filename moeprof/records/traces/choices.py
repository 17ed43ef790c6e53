"""The choices of tokens as engines log them, in arrays, and the routing traces made of them.

T tokens, L layers, K choices, R rows of a trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from moeprof.records.arrays import Flags
from moeprof.records.limits import MAX_EXPERTS
from moeprof.records.traces.columns import with_columns
from moeprof.records.traces.import_options import ImportReport
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader

Ids = npt.NDArray[np.integer]
"""Whole numbers of any size, as engines store them."""

NO_EXPERT = -1
MAX_SLOTS = 127
"""The most choices of a token, whose numbers a trace keeps in a byte."""


@dataclass(frozen=True)
class LoggedChoices:
    """Tokens in the order of the log. All of them went through the same layers, unless all of a layer's choices are NO_EXPERT."""

    experts_TLK: Ids
    """Logical ids, by descending weight if the log says; NO_EXPERT where nothing was chosen."""
    layers: Sequence[int | str]
    """Absolute numbers of the layers, (L,), or their names."""
    step_T: Ids
    """The forward pass of each token, counted over the whole log."""
    sequence_T: Ids
    position_T: Ids
    decode_T: Flags
    """Whether a token was decoded; others are of a prompt."""
    token_id_T: Ids | None = None
    weights_TLK: npt.NDArray[np.floating] | None = None
    domain_T: Ids | None = None
    """The index of each token's domain in `domains`; None if there is only one, which the reader names."""
    domains: Sequence[str] = ()
    dropped_TLK: Flags | None = None
    """Choices that an expert's capacity did not admit, or that were skipped; None if there are none."""

    def __len__(self) -> int:
        return len(self.experts_TLK)

    def select(self, kept_T: Flags) -> "LoggedChoices":
        """Some of the tokens."""
        of_tokens = {one.name: getattr(self, one.name) for one in fields(self) if "_T" in one.name}
        return replace(self, **{name: values[kept_T] for name, values in of_tokens.items() if values is not None})


def traces_of(
    choices: LoggedChoices,
    domain: str,
    num_experts: int | None,
    workload: str = "lm",
    report: ImportReport | None = None,
    prompt_phase: str = "prefill",
) -> list[RoutingTrace]:
    """One trace per phase that has tokens, prompts first; without a number of experts it is one more than the highest id.

    ValueError if there are no choices, or an expert is out of range.
    """
    if not len(choices) or not (choices.experts_TLK >= 0).any():
        raise ValueError("no choices in it")
    known = num_experts or int(choices.experts_TLK.max()) + 1
    if not 1 <= known <= MAX_EXPERTS:
        raise ValueError(f"expert {choices.experts_TLK.max()} is not below {MAX_EXPERTS:,}")
    if choices.experts_TLK.shape[2] > min(known, MAX_SLOTS):
        raise ValueError(f"a token has {choices.experts_TLK.shape[2]} choices, more than {min(known, MAX_SLOTS)}")
    header = TraceHeader(
        workload=workload,
        phase=prompt_phase,
        variant="imported",
        num_experts=known,
        top_k=choices.experts_TLK.shape[2],
        layers=[str(layer) for layer in choices.layers],
        imported=report,
    )
    return [
        RoutingTrace(header.model_copy(update={"phase": phase}), table_of(choices.select(chosen_T), domain)).validate()
        for phase, chosen_T in ((prompt_phase, ~choices.decode_T), ("decode", choices.decode_T))
        if chosen_T.any()
    ]


def table_of(choices: LoggedChoices, domain: str) -> pa.Table:
    """Rows in the order of their computation: step by step, and within a step layer by layer."""
    num_tokens, _, top_k = choices.experts_TLK.shape
    present_TL = (choices.experts_TLK != NO_EXPERT).any(axis=2)
    token_N, layer_N = np.nonzero(present_TL)
    order_N = np.lexsort((token_N, layer_N, choices.step_T[token_N]))
    token_N, layer_N = token_N[order_N], layer_N[order_N]
    expert_NK = choices.experts_TLK[token_N, layer_N]
    slot_NK = np.broadcast_to(np.arange(top_k, dtype=np.int8), expert_NK.shape)
    row_R, token_R = (expert_NK != NO_EXPERT).ravel(), np.repeat(token_N, top_k)
    weight_NK = np.full(expert_NK.shape, np.nan, np.float32)
    if choices.weights_TLK is not None:
        weight_NK = choices.weights_TLK[token_N, layer_N].astype(np.float32)
    token_ids_T = np.full(num_tokens, -1) if choices.token_id_T is None else choices.token_id_T
    columns = {
        "step": choices.step_T[token_R],
        "sequence": choices.sequence_T[token_R],
        "position": choices.position_T[token_R],
        "token_id": token_ids_T[token_R],
        "slot": slot_NK.ravel(),
        "expert": expert_NK.ravel(),
        "weight": weight_NK.ravel(),
        "dropped": np.zeros(len(token_R), bool)
        if choices.dropped_TLK is None
        else choices.dropped_TLK[token_N, layer_N].ravel(),
    }
    table = pa.table({name: pa.array(values[row_R]) for name, values in columns.items()})
    names = {"layer": (np.repeat(layer_N, top_k)[row_R], [str(layer) for layer in choices.layers])}
    domain_R = np.zeros(table.num_rows) if choices.domain_T is None else choices.domain_T[token_R][row_R]
    names["domain"] = (domain_R, list(choices.domains) or [domain])
    for name, (code_R, known) in names.items():
        table = table.append_column(name, pa.DictionaryArray.from_arrays(pa.array(code_R.astype(np.int32)), pa.array(known)))
    return with_columns(table, COLUMNS)
