"""How tokens become expert rows and come back; one file per way, one line each in the registry."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from torch import Tensor

from moeprof.moe.dispatch import dynamic, static, tutel
from moeprof.moe.exchange import Exchange
from moeprof.moe.experts import ExpertRows
from moeprof.moe.routing import Routing


class Sent(Protocol):
    """What left for the experts, and how it comes back."""

    @property
    def rows(self) -> ExpertRows:
        """Tokens as rows grouped by physical expert."""
        ...

    @property
    def dropped_TK(self) -> Tensor | None:
        """Choices that found their expert full; None where nothing can be."""
        ...

    def combine(self, outputs_RD: Tensor, scale: float) -> Tensor:
        """Weighted expert outputs back in token order, (T, D), times `scale`."""
        ...


Dispatch = Callable[[Tensor, Routing, float, Exchange | None], Sent]
"""Of tokens (T, D), their routing, the capacity fraction C, and what ranks must know of each other; None where one has all."""

DISPATCHES: dict[str, Dispatch] = {
    "static": static.dispatch,
    "tutel": tutel.dispatch,
    "tutel-dropless": partial(tutel.dispatch, dropless=True),
    "dynamic": dynamic.dispatch,
}
