"""The instrument of the pass `routing`: records every decision of the routers as a routing trace."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from moeprof.instrument.step import Step
from moeprof.instrument.visits import ExpertLoadRecorder
from moeprof.records.errors import MoeprofError
from moeprof.records.traces.gate_entropy import GateEntropy
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader, joined


class RoutingRecorder(ExpertLoadRecorder):
    """Records the routers' decisions, and the expert loads of buffered layers; Arrow tables are made afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[tuple[str, Step, Tensor, Tensor, Tensor]] = []
        self.steps: list[tuple[str, Step, int, int]] = []
        """Layer, step, S (padding included), and the rows that the layer handed to its experts."""
        self.calls: list[tuple[str, Step, str, Mapping[str, int]]] = []
        """Layer, step, what computed the experts, and the number of choices of each kind."""
        self.entropies_T: list[tuple[str, Step, Tensor]] = []

    def scored(self, layer: str, step: Step, gates_TE: Tensor) -> None:
        self.entropies_T.append((layer, step, torch.special.entr(gates_TE).sum(dim=1)))

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        super().routed(layer, step, experts_TK, probs_TK, dropped_TK, num_rows)
        self.steps.append((layer, step, len(experts_TK), num_rows))
        self.decisions.append((layer, step, experts_TK, probs_TK, dropped_TK))

    def called(self, layer: str, step: Step, backend: str, choices: Mapping[str, int]) -> None:
        self.calls.append((layer, step, backend, choices))

    def trace(self, header: TraceHeader) -> RoutingTrace:
        """The trace of everything recorded so far."""
        return joined(header, [decision_table(*decision) for decision in self.decisions])

    def entropies(self) -> list[GateEntropy]:
        """The entropies of every layer and step that had a token, padding left out."""
        found = []
        for layer, step, entropy_T in self.entropies_T:
            real_T = entropy_T if step.real_T is None else entropy_T[step.real_T]
            if len(real_T):
                found.append(GateEntropy(layer, step.domain, len(real_T), float(real_T.double().sum())))
        return found


def decision_table(layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor) -> pa.Table:
    """The routing of one layer at one step, without padding. MoeprofError if the router's softmax is not finite."""
    if not torch.isfinite(probs_TK).all():
        raise MoeprofError(
            f"layer {layer}, {step.phase} step {step.index}: the router's softmax is not finite",
            "The hidden states overflow: check the checkpoint, or use --set model.dtype=float32.",
        )
    num_tokens, top_k = experts_TK.shape
    real_T = np.ones(num_tokens, bool) if step.real_T is None else step.real_T.cpu().numpy()
    num_rows = int(real_T.sum()) * top_k

    def each_choice(values_T: object) -> pa.Array:
        return pa.array(np.repeat(np.asarray(values_T)[real_T], top_k))

    def choices(values_TK: Tensor) -> pa.Array:
        return pa.array(values_TK.cpu().numpy()[real_T].reshape(-1))

    def name(value: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int32)), pa.array([value]))

    columns = {
        "step": pa.array(np.full(num_rows, step.index, np.int32)),
        "sequence": each_choice(step.sequence_T),
        "position": each_choice(step.position_T),
        "token_id": each_choice(step.token_T),
        "layer": name(layer),
        "slot": pa.array(np.tile(np.arange(top_k, dtype=np.int8), num_rows // top_k)),
        "expert": choices(experts_TK.int()),
        "weight": choices(probs_TK.float()),
        "domain": name(step.domain),
        "dropped": choices(dropped_TK),
        "residency": pa.nulls(num_rows, pa.int8()),
    }
    return pa.table(list(columns.values()), schema=COLUMNS)
