"""What a trained checkpoint tells about itself: where it comes from, and what it can do."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """One point of the training curve."""

    step: int
    tokens: int
    """Read so far, padding left out."""
    loss: float
    """Mean cross-entropy of the lessons since the point before, nats per predicted token."""
    heldout: dict[str, float]
    """Cross-entropy by domain, nats per predicted token."""


@dataclass(frozen=True)
class Origin:
    """What a checkpoint was made from; it lies in the checkpoint, and is the same on every run on one machine."""

    recipe: dict[str, Any]
    """The sections that decide the weights."""
    twin: bool
    """Whether it is the dense twin of hidden width k x F."""
    text_hashes: dict[str, str]
    """SHA-256 of every domain's training text."""
    tokens: int
    curve: list[Point]


@dataclass(frozen=True)
class Twin:
    """The dense model that a checkpoint is compared with."""

    num_parameters: int
    tokens: int
    heldout: dict[str, float]
    """Nats per predicted token, by domain."""


@dataclass(frozen=True)
class LayerUse:
    """What one MoE layer does with the held-out text of the default corpora."""

    phase: str
    layer: str
    dead_experts: int
    """That no token of the phase uses."""
    hot_jaccard: dict[str, float]
    """Of the hottest quarters of the experts, by pair of domains."""
    inactive: dict[str, float]
    """Decode: share of the experts that a step with every sequence running leaves idle, by domain."""
    inactive_bound: float
    """What of that follows from the number of tokens alone: 1 - min(E, k x tokens) / E."""


@dataclass(frozen=True)
class ModelCard:
    """A checkpoint as its card shows it; cross-entropies are those of the stored, rounded weights."""

    origin: Origin
    file_bytes: int
    sha256: str
    num_parameters: int
    cpu_seconds: float | None
    """Of the training; None where the state that knew is gone."""
    heldout: dict[str, float]
    """Nats per predicted token, by domain."""
    chrf: dict[str, float]
    """MT: of greedy translations, by language."""
    twin: Twin | None
    decode_batch: int
    """Sequences that were decoded together."""
    uses: list[LayerUse]
    answers: dict[str, dict[str, float]]
    """Held-out cross-entropy, nats by domain, when the model is changed as the key says."""
