"""Which experts are computed where their weights are, and which are moved first, as MoNDE splits them (arXiv 2405.18832).

The near side, a GPU for example, moves the weights of an expert to itself and computes; the far side, which holds all weights, computes
experts itself and only rows cross the link. Both work at the same time, so the layer takes as long as the busier side. Few rows favour the
far side: it saves the weights' way. Times may have any unit. Shape suffixes: E active experts, C those of them that are not resident.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Flags, Floats, Ints

MAX_EXHAUSTIVE = 12
"""The most experts whose splits are all compared."""


@dataclass(frozen=True)
class LinearTime:
    """The time for an amount of bytes or rows: `fixed` + `per_unit` x amount, and at least `least`.

    With `least` it is a roofline: computing on rows takes no less than reading the weights.
    """

    fixed: float = 0.0
    per_unit: float = 0.0
    least: float = 0.0

    def at(self, amount: npt.ArrayLike) -> Floats:
        """The time for each amount, in their shape."""
        return np.maximum(self.least, self.fixed + self.per_unit * np.asarray(amount, np.float64))


@dataclass(frozen=True)
class SplitCosts:
    """What an expert costs on either side."""

    link: LinearTime
    """Moving so many bytes of weights to the near side."""
    near: LinearTime
    """Computing so many rows on the near side."""
    far: LinearTime
    """Computing so many rows on the far side."""
    activations: LinearTime
    """Moving so many bytes of rows to the far side and back."""
    overlapped: bool = True
    """Whether moving an expert's weights overlaps with computing another one, so that the longer of both counts."""

    def near_times(self, rows_E: Ints, expert_bytes: float, resident_E: Flags) -> Floats:
        """The time of each expert on the near side, (E,); resident ones are computed only."""
        computing_E, moving = self.near.at(rows_E), float(self.link.at(expert_bytes))
        moved_E = np.maximum(computing_E, moving) if self.overlapped else computing_E + moving
        return np.where(resident_E, computing_E, moved_E)

    def far_times(self, rows_E: Ints, row_bytes: float) -> Floats:
        """The time of each expert on the far side, (E,); a row of `row_bytes` goes there and comes back."""
        return self.far.at(rows_E) + self.activations.at(2 * row_bytes * rows_E)


@dataclass(frozen=True)
class ExpertSplit:
    """Which of the active experts the far side computes, and how long both sides take."""

    far_E: Flags
    near_time: float
    far_time: float

    @property
    def makespan(self) -> float:
        """The time of the busier side."""
        return max(self.near_time, self.far_time)


def split_experts(
    near_E: Floats, far_E: Floats, rows_E: Ints, resident_E: Flags, max_exhaustive: int = MAX_EXHAUSTIVE
) -> ExpertSplit:
    """The split with the smallest makespan, given each expert's time on either side, (E,). Resident experts stay near.

    All splits are compared if at most `max_exhaustive` experts are not resident. Otherwise those that send the n experts with the
    fewest rows to the far side, for every n; of equal rows the first expert goes first. Of equal makespans the split with fewer far
    experts is taken. An infinite time excludes a side.
    """
    candidates_C = np.flatnonzero(~resident_E)
    candidates_C = candidates_C[np.argsort(rows_E[candidates_C], kind="stable")]
    chosen = exhaustive if len(candidates_C) <= max_exhaustive else by_prefix
    computed_far_E = np.zeros(len(rows_E), bool)
    computed_far_E[candidates_C] = chosen(near_E[candidates_C], far_E[candidates_C], float(near_E[resident_E].sum()))
    return ExpertSplit(computed_far_E, float(near_E[~computed_far_E].sum()), float(far_E[computed_far_E].sum()))


def by_prefix(near_C: Floats, far_C: Floats, busy: float) -> Flags:
    """The best first n candidates for the far side, (C,); the near side is `busy` for so long anyway."""
    near_N = busy + np.append(np.cumsum(near_C[::-1])[::-1], 0)
    far_N = np.append(0, np.cumsum(far_C))
    return np.arange(len(near_C)) < np.argmin(np.maximum(near_N, far_N))


def exhaustive(near_C: Floats, far_C: Floats, busy: float) -> Flags:
    """The best of all sets of candidates for the far side, (C,); set number s holds candidate c if bit c of s is 1."""
    near_S, far_S, size_S = np.array([busy]), np.zeros(1), np.zeros(1, np.int64)
    for near, far in zip(near_C, far_C, strict=True):
        near_S = np.concatenate([near_S + near, near_S])
        far_S = np.concatenate([far_S, far_S + far])
        size_S = np.concatenate([size_S, size_S + 1])
    best = int(np.lexsort((size_S, np.maximum(near_S, far_S)))[0])
    return np.array([best >> candidate & 1 for candidate in range(len(near_C))], bool)


def crossover_rows(expert_bytes: float, row_bytes: float) -> float:
    """The rows of an expert above which moving its weights moves fewer bytes than moving its rows there and back."""
    return expert_bytes / (2 * row_bytes)
