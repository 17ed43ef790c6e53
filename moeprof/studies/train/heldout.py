"""Cross-entropy on held-out text."""

import math
from collections.abc import Mapping, Sequence

import torch

from moeprof.studies.train.learner import Learner
from moeprof.studies.train.lessons import Lesson
from moeprof.studies.train.objective import cross_entropy_of


def cross_entropies(learner: Learner, heldout: Mapping[str, Lesson]) -> dict[str, float]:
    """Nats per predicted token, by domain."""
    with torch.inference_mode():
        return {
            domain: float(cross_entropy_of(learner.logits(lesson), lesson.targets_BL)) for domain, lesson in heldout.items()
        }


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; 0 if there are no values."""
    return math.fsum(values) / len(values) if values else 0.0


def bits(nats: float) -> float:
    """Converts nats per token to bits per token."""
    return nats / math.log(2)


def quality_text(heldout: Mapping[str, float]) -> str:
    """Formats values such as `prose 1.31, code 0.98 bits/token`."""
    return ", ".join(f"{domain} {bits(nats):.2f}" for domain, nats in heldout.items()) + " bits/token"
