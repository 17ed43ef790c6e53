"""How tokens become expert rows and come back: one file per dispatch, and one line in `records/recipe/dispatch.py`."""

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Protocol

from torch import Tensor

from moeprof.moe.exchange import Exchange
from moeprof.moe.experts import ExpertRows
from moeprof.moe.routing import Routing
from moeprof.records.recipe.dispatch import DISPATCHES


class Dispatched(Protocol):
    """Rows for the experts, and the way from their outputs to the outputs of tokens."""

    @property
    def rows(self) -> ExpertRows:
        """Rows of tokens, grouped by physical expert."""
        ...

    @property
    def dropped_TK(self) -> Tensor | None:
        """Choices over the capacity of their expert, (T, K) bool; None if the dispatch drops nothing."""
        ...

    def combine(self, outputs_RD: Tensor, scale: float) -> Tensor:
        """Weighted sums of expert outputs in token order, (T, D), times `scale`."""
        ...


DispatchFunction = Callable[[Tensor, Routing, float, Exchange], Dispatched]
"""Takes tokens (T, D), their routing, the capacity fraction C, and the exchange between ranks."""

FUNCTIONS: dict[str, DispatchFunction] = {}
"""Functions that are already imported, by the name of their dispatch."""


def dispatch_function(name: str) -> DispatchFunction:
    """The function of a registered dispatch, imported when it is first asked for; KeyError if the name is unknown."""
    if name not in FUNCTIONS:
        FUNCTIONS[name] = resolve_name(DISPATCHES[name].function)
    return FUNCTIONS[name]
