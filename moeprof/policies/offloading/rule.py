"""HOBBIT's load rule: which precision a missing expert is loaded in, by how much the better choices of its tokens weigh (arXiv 2411.01433).

A choice is the less important, the more weight its token gives to the choices ranked better. The rule is asked on a miss only: a
resident expert is used in the precision that it has. Shape suffixes: T tokens, K choices, E experts.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Flags, Floats, Ints
from moeprof.records.errors import UsageError

Decided = npt.NDArray[np.int8]

HIGH, LOW, SKIP = 0, 1, 2
"""What becomes of a missing expert: loaded in the model's precision, loaded in the packed one, not computed at all."""


def unimportance(weights_TK: npt.NDArray[np.floating]) -> Floats:
    """The part of each token's weight that its better choices have, (T, K), from 0 to 1; the best choice has 0.

    Choices may come in any order; of equal weights the first is better. Signs of weights do not count. A token whose weights
    are all zero has 0 everywhere. ValueError if a weight is not finite. Weights [5, 3, 2] and [2, 5, 3]:
        [0, 0.5, 0.8] and [0.8, 0, 0.5]
    """
    size_TK = np.abs(np.asarray(weights_TK, np.float64))
    if not np.isfinite(size_TK).all():
        raise ValueError("a combine weight is not a finite number")
    order_TK = np.argsort(-size_TK, axis=1, kind="stable")
    ranked_TK = np.take_along_axis(size_TK, order_TK, axis=1)
    total_T1 = ranked_TK.sum(axis=1, keepdims=True)
    better_TK = np.zeros_like(ranked_TK)
    np.cumsum(ranked_TK[:, :-1], axis=1, out=better_TK[:, 1:])
    better_TK /= np.where(total_T1 > 0, total_T1, 1)
    unimportance_TK = np.empty_like(better_TK)
    np.put_along_axis(unimportance_TK, order_TK, np.minimum(better_TK, 1), axis=1)
    return unimportance_TK


def expert_unimportance(experts_TK: Ints, unimportance_TK: Floats, num_experts: int, kept_TK: Flags | None = None) -> Floats:
    """The least unimportance of each expert in a step, (E,): an expert matters as much as to the token that needs it most.

    Infinite for experts without tokens. `kept_TK` is false for choices that do not count: padding, or dropped by a capacity.
    Experts [[0, 1], [1, 2]] with unimportance [[0, 0.7], [0, 0.9]], of 4 experts:
        [0, 0, 0.9, inf]
    """
    least_E = np.full(num_experts, np.inf)
    counted = slice(None) if kept_TK is None else kept_TK
    np.minimum.at(least_E, experts_TK[counted].ravel(), unimportance_TK[counted].ravel())
    return least_E


@dataclass(frozen=True)
class LoadRule:
    """Load in high precision up to an unimportance of T1, in low precision up to T2, and skip above; UsageError if T2 < T1.

    The defaults are the paper's for Mixtral. With T1 = T2 = 1 every expert is loaded in high precision.
    """

    t1: float = 0.6
    t2: float = 0.9

    def __post_init__(self) -> None:
        for name, threshold in (("T1", self.t1), ("T2", self.t2)):
            if not 0 <= threshold <= 1:
                raise UsageError(f"{name} {threshold}: an unimportance is from 0 to 1", f"Give {name} a value from 0 to 1.")
        if self.t2 < self.t1:
            raise UsageError(
                f"T2 {self.t2} is smaller than T1 {self.t1}: no expert could be loaded in low precision",
                f"Give T2 a value from {self.t1} to 1; T2 = T1 skips what is not loaded in high precision.",
            )

    def decide(self, unimportance_E: Floats) -> Decided:
        """HIGH, LOW or SKIP for each expert, (E,); SKIP for experts without tokens, whose unimportance is infinite."""
        return np.where(unimportance_E <= self.t1, HIGH, np.where(unimportance_E <= self.t2, LOW, SKIP)).astype(np.int8)

    def changes_nothing(self, top_k: int) -> bool:
        """Whether every expert is loaded in high precision: with one choice per token, which is the best one, or if T1 is 1."""
        return top_k == 1 or self.t1 == 1
