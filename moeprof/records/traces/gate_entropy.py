"""How undecided a router was in one step: the only thing about its softmax that is kept."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GateEntropy:
    """Of one layer in one step, in nats, summed over its tokens."""

    layer: str
    domain: str
    tokens: int
    total: float

    @property
    def mean(self) -> float:
        """Per token."""
        return self.total / self.tokens
