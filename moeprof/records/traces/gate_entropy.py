"""The entropy of a router's softmax in one step, which is all that is kept of the softmax."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GateEntropy:
    """The gate entropy of one layer in one step, in nats; `total` is the sum over its tokens."""

    layer: str
    domain: str
    tokens: int
    total: float

    @property
    def mean(self) -> float:
        """The mean entropy per token."""
        return self.total / self.tokens
