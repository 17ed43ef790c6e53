"""The module of the experts of one layer: its stacked tensors, and the same module with others in their place.

T tokens, K choices, E experts, D width.
"""

from copy import copy
from typing import Any, cast

from torch import Tensor, nn

from moeprof.store.resident import ExpertWeights


def expert_tensors(experts: nn.Module, num_experts: int) -> ExpertWeights:
    """The module's own parameters of which each expert has a part: those with E as their first dimension, not copied."""
    own = experts.named_parameters(recurse=False)
    return ExpertWeights((name, whole) for name, whole in own if whole.dim() and len(whole) == num_experts)


def with_tensors(experts: nn.Module, weights: ExpertWeights) -> nn.Module:
    """A second module of the same class that shares all but these tensors; ids from their number of experts on are sentinels.

    Upstream gives the ids of experts on other ranks like that: they are computed by no one and weigh nothing.
    """
    twin = copy(experts)
    twin._parameters = {name: one for name, one in experts._parameters.items() if name not in weights}
    vars(twin).update(weights, num_experts=weights.num_experts, _is_expert_parallel=True)
    return twin


def computed(experts: nn.Module, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Outputs (T, D) by the forward function of the class, which asks the backend; hooks and replacements are passed by."""
    return cast("Tensor", cast("Any", type(experts)).forward(experts, x_TD, experts_TK, weights_TK))
