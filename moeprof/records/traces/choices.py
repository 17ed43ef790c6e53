"""The choices of tokens as engines log them, in arrays, and the routing traces made of them.

T tokens, L layers, K choices, R rows of a trace.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class LoggedChoices:
    """Tokens in the order of the log. All of them went through the same layers, unless all of a layer's choices are NO_EXPERT."""

    experts_TLK: Ids
    """Logical ids, by descending weight if the log says; NO_EXPERT where nothing was chosen."""
    layers: Sequence[int]
    """Absolute numbers of the layers, (L,)."""
    step_T: Ids
    """The forward pass of each token, counted over the whole log."""
    sequence_T: Ids
    position_T: Ids
    decode_T: Flags
    """Whether a token was decoded; others are of a prompt."""
    token_id_T: Ids | None = None
    weights_TLK: npt.NDArray[np.floating] | None = None

    def __len__(self) -> int:
        return len(self.experts_TLK)

    def select(self, kept_T: Flags) -> "LoggedChoices":
        """Some of the tokens."""
        return LoggedChoices(
            self.experts_TLK[kept_T],
            self.layers,
            self.step_T[kept_T],
            self.sequence_T[kept_T],
            self.position_T[kept_T],
            self.decode_T[kept_T],
            None if self.token_id_T is None else self.token_id_T[kept_T],
            None if self.weights_TLK is None else self.weights_TLK[kept_T],
        )


def traces_of(
    choices: LoggedChoices, domain: str, num_experts: int | None, workload: str = "lm", report: ImportReport | None = None
) -> list[RoutingTrace]:
    """One trace per phase that has tokens, prefill first; without a number of experts it is one more than the highest id.

    ValueError if there are no choices, or an expert is out of range.
    """
    if not len(choices) or not (choices.experts_TLK >= 0).any():
        raise ValueError("no choices in it")
    known = num_experts or int(choices.experts_TLK.max()) + 1
    if not 1 <= known <= MAX_EXPERTS:
        raise ValueError(f"expert {choices.experts_TLK.max()} is not below {MAX_EXPERTS:,}")
    return list(by_phase(choices, domain, known, workload, report))


def by_phase(
    choices: LoggedChoices, domain: str, num_experts: int, workload: str, report: ImportReport | None
) -> Iterator[RoutingTrace]:
    """The traces of `traces_of`."""
    for phase, chosen_T in (("prefill", ~choices.decode_T), ("decode", choices.decode_T)):
        if chosen_T.any():
            header = TraceHeader(
                workload=workload,
                phase=phase,
                variant="imported",
                num_experts=num_experts,
                top_k=choices.experts_TLK.shape[2],
                layers=[str(layer) for layer in choices.layers],
                imported=report,
            )
            yield RoutingTrace(header, table_of(choices.select(chosen_T), domain)).validate()


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
        "dropped": np.zeros(len(token_R), bool),
    }
    table = pa.table({name: pa.array(values[row_R]) for name, values in columns.items()})
    names = {"layer": (np.repeat(layer_N, top_k)[row_R], [str(layer) for layer in choices.layers])}
    names["domain"] = (np.zeros(table.num_rows), [domain])
    for name, (code_R, known) in names.items():
        table = table.append_column(name, pa.DictionaryArray.from_arrays(pa.array(code_R.astype(np.int32)), pa.array(known)))
    return with_columns(table, COLUMNS)
