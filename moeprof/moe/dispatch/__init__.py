"""How tokens become expert rows and come back; one file per way, one line each in the registry."""

from typing import Protocol

from torch import Tensor

from moeprof.moe.dispatch import static
from moeprof.moe.dispatch.static import Sent
from moeprof.moe.routing import Routing


class Dispatch(Protocol):
    """A module with these two functions."""

    def dispatch(self, x_TD: Tensor, routing: Routing, capacity_fraction: float) -> Sent:
        """Tokens to rows grouped by physical expert."""
        ...

    def combine(self, outputs_RD: Tensor, sent: Sent, scale: float) -> Tensor:
        """Weighted expert outputs back in token order, (T, D)."""
        ...


DISPATCHES: dict[str, Dispatch] = {"static": static}
