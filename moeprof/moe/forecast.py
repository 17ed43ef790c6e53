"""What a network predicts for a step before its first layer runs: hints for a store, or decisions in place of the routers (SiDA).

T tokens (padding included), E experts, P predicted experts per token, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from moeprof.instrument.step import Step
from moeprof.moe.router import best
from moeprof.policies.offloading.demands import Demands
from moeprof.policies.offloading.planner import Demand
from moeprof.records.arrays import Floats, Ints
from moeprof.records.recipe.offloading import Offloading


@dataclass(frozen=True, eq=False)
class Expected:
    """What one layer is expected to use in a step."""

    experts_TP: Tensor
    """Best first."""
    gates_TP: Tensor
    """Their shares of the predicted softmax."""
    demands: Sequence[Demand]
    """The experts of all tokens that are not padding, those with the largest sum of shares first."""


class Forecast:
    """The prediction for the running step of one stack under one variant; as a foresight it hints at every layer that is still to come."""

    def __init__(
        self, choice: Offloading, sizes: Mapping[str, int], top_k: int, demands: Demands, parameters: Sequence[Tensor]
    ) -> None:
        """`sizes` are the experts of every layer, in order of execution; `parameters` are those of the network, for the memory."""
        self.choice, self.sizes, self.demands, self.parameters = choice, sizes, demands, parameters
        self.layers = list(sizes)
        self.count = top_k if choice.bypass else choice.predicted
        self.history: dict[int, Any] = {}
        self.step: Step | None = None
        self.expected: dict[str, Expected] = {}

    def begin(self, step: Step, gates: Mapping[str, Tensor]) -> None:
        """Takes the predicted softmax (T, E) of every layer for a step that begins."""
        self.step = step
        self.expected = {layer: self.of_layer(step, gates[layer], self.sizes[layer]) for layer in self.layers}

    def of_layer(self, step: Step, gates_TE: Tensor, num_experts: int) -> Expected:
        """The most probable experts of one layer."""
        experts_TP = best(gates_TE, min(self.count, gates_TE.shape[1]))
        gates_TP = gates_TE.gather(1, experts_TP)
        asked_TP = experts_TP if step.real_T is None else experts_TP.masked_fill(~step.real_T[:, None], num_experts)
        ids, shares = asked_TP.cpu().numpy(), gates_TP.double().cpu().numpy()
        return Expected(experts_TP, gates_TP, by_share(self.demands(ids, shares, num_experts), ids, shares, num_experts))

    def hints(self, layer: int, demands: Sequence[Demand], x_TD: Any = None) -> Iterator[tuple[int, list[Demand]]]:
        """What the next `depth` layers of the step are expected to use; nothing outside a step that was predicted."""
        for target in range(layer + 1, min(layer + 1 + self.choice.depth, len(self.layers))):
            if (found := self.expected.get(self.layers[target])) is not None:
                yield target, list(found.demands)

    def decided(self, layer: str, step: Step) -> tuple[Tensor, Tensor] | None:
        """Experts (T, K) and their softmax values in place of the router's; None if the router decides.

        It also decides in a step that was not predicted: that of a layer that is called by itself, outside of its model.
        """
        if not self.choice.bypass or step is not self.step:
            return None
        return self.expected[layer].experts_TP, self.expected[layer].gates_TP


def by_share(demands: Sequence[Demand], experts_TP: Ints, gates_TP: Floats, num_experts: int) -> list[Demand]:
    """The demands with the largest sum of shares first, ties to the lowest id: slots may be too few for all."""
    kept_TP = experts_TP < num_experts
    share_E = np.bincount(experts_TP[kept_TP], gates_TP[kept_TP], num_experts)
    return sorted(demands, key=lambda one: (-share_E[one.expert], one.expert))
