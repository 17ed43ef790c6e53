"""The contents of a model card: the origin of a trained checkpoint, its quality and its routing."""

from dataclasses import dataclass
from typing import Any

CARD = "README.md"
"""The model card of a checkpoint that is a folder."""


@dataclass(frozen=True)
class CurvePoint:
    """One point of the training curve."""

    step: int
    tokens: int
    """Tokens read so far, without padding."""
    loss: float
    """Mean cross-entropy of the training text since the previous point, nats per predicted token."""
    heldout: dict[str, float]
    """Cross-entropy by domain, nats per predicted token."""


@dataclass(frozen=True)
class Origin:
    """What a checkpoint was made from; it is stored in the checkpoint, and is the same for every run on one machine."""

    recipe: dict[str, Any]
    """The recipe's sections that determine the weights."""
    twin: bool
    """Whether it is the dense twin of hidden width k x F."""
    text_hashes: dict[str, str]
    """SHA-256 of every domain's training text."""
    tokens: int
    curve: list[CurvePoint]


@dataclass(frozen=True)
class Twin:
    """The dense model that a checkpoint is compared with."""

    num_parameters: int
    tokens: int
    heldout: dict[str, float]
    """Cross-entropy by domain, nats per predicted token."""


@dataclass(frozen=True)
class LayerUse:
    """How one MoE layer routes the held-out text of the default corpora."""

    phase: str
    layer: str
    dead_experts: int
    """Number of experts that no token of the phase uses."""
    hot_jaccard: dict[str, float]
    """Jaccard index of the hottest quarters of the experts, by pair of domains."""
    inactive: dict[str, float]
    """Decode: mean share of idle experts in steps in which every sequence is running, by domain."""
    inactive_bound: float
    """The least share that the number of tokens allows: 1 - min(E, k x tokens) / E."""


@dataclass(frozen=True)
class ModelCard:
    """The measurements of a checkpoint; cross-entropies are those of the stored, rounded weights."""

    origin: Origin
    file_bytes: int
    sha256: str
    num_parameters: int
    cpu_seconds: float | None
    """CPU time of the training; None if its state file no longer exists."""
    heldout: dict[str, float]
    """Cross-entropy by domain, nats per predicted token."""
    chrf: dict[str, float]
    """MT: chrF of greedy translations, by language."""
    twin: Twin | None
    decode_batch: int
    """Number of sequences that were decoded together."""
    uses: list[LayerUse]
    answers: dict[str, dict[str, float]]
    """Held-out cross-entropy by domain, in nats, of the model changed as the key says."""
