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
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, StepClock, TraceHeader

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
        if kept_T.all():
            return self
        of_tokens = {one.name: getattr(self, one.name) for one in fields(self) if "_T" in one.name}
        return replace(self, **{name: values[kept_T] for name, values in of_tokens.items() if values is not None})


def traces_of(
    choices: LoggedChoices,
    domain: str,
    num_experts: int | None,
    workload: str = "lm",
    report: ImportReport | None = None,
    prompt_phase: str = "prefill",
    clock: StepClock = "token",
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
        clock=clock,
        imported=report,
    )
    return [
        RoutingTrace(header.model_copy(update={"phase": phase}), table_of(choices.select(chosen_T), domain)).validate()
        for phase, chosen_T in ((prompt_phase, ~choices.decode_T), ("decode", choices.decode_T))
        if chosen_T.any()
    ]


def table_of(choices: LoggedChoices, domain: str) -> pa.Table:
    """Rows in the order of their computation: step by step, and within a step layer by layer."""
    token_N, layer_N = np.nonzero((choices.experts_TLK != NO_EXPERT).any(axis=2))
    order_N = np.lexsort((token_N, layer_N, choices.step_T[token_N]))
    token_N, layer_N = token_N[order_N], layer_N[order_N]
    expert_NK = choices.experts_TLK[token_N, layer_N].astype(np.int32)
    chosen_R = None if (chosen_NK := expert_NK != NO_EXPERT).all() else chosen_NK.ravel()

    def of_tokens(value_T: Ids | None, missing: int) -> npt.NDArray[np.generic]:
        """A value of each token, (R,)."""
        return repeated(np.full(len(token_N), missing, np.int32) if value_T is None else value_T.astype(np.int32)[token_N])

    def repeated(value_N: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A value of each token and layer, (R,)."""
        return chosen(np.repeat(value_N, expert_NK.shape[1]))

    def of_choices(cube_TLK: npt.NDArray[np.generic] | None, missing: np.float32 | np.bool_) -> npt.NDArray[np.generic]:
        """A value of each choice, (R,), of the type of what stands for a missing one."""
        found_R = np.full(expert_NK.size, missing) if cube_TLK is None else cube_TLK[token_N, layer_N].ravel()
        return chosen(found_R.astype(missing.dtype, copy=False))

    def chosen(value_R: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return value_R if chosen_R is None else value_R[chosen_R]

    names = {
        "layer": (repeated(layer_N.astype(np.int32)), [str(layer) for layer in choices.layers]),
        "domain": (of_tokens(choices.domain_T, 0), list(choices.domains) or [domain]),
    }
    columns = {
        "step": of_tokens(choices.step_T, 0),
        "sequence": of_tokens(choices.sequence_T, 0),
        "position": of_tokens(choices.position_T, 0),
        "token_id": of_tokens(choices.token_id_T, -1),
        "slot": chosen(np.tile(np.arange(expert_NK.shape[1], dtype=np.int8), len(expert_NK))),
        "expert": chosen(expert_NK.ravel()),
        "weight": of_choices(choices.weights_TLK, np.float32(np.nan)),
        "dropped": of_choices(choices.dropped_TLK, np.bool_(False)),
    }
    arrays = {name: pa.array(values) for name, values in columns.items()}
    for name, (code_R, known) in names.items():
        arrays[name] = pa.DictionaryArray.from_arrays(pa.array(code_R), pa.array(known))
    return with_columns(pa.table(arrays), COLUMNS)
