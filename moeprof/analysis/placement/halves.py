"""The paper's protocol (6.4): the first half of a trace gives the placement, the second half judges it.

Shape suffix: B steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moeprof.analysis.routing.load_matrix import LoadMatrix, pooled


@dataclass(frozen=True, eq=False)
class Halves:
    """Steps of one layer, by what they are for."""

    history: LoadMatrix
    test: LoadMatrix


def part_of(matrix: LoadMatrix, first: int, last: int) -> LoadMatrix:
    """The columns from `first` to before `last`."""
    low, high = np.searchsorted(matrix.column_N, (first, last))
    steps, cells = slice(first, last), slice(int(low), int(high))
    return replace(
        matrix,
        steps_B=matrix.steps_B[steps],
        tokens_B=matrix.tokens_B[steps],
        dropped_tokens_B=matrix.dropped_tokens_B[steps],
        dropped_KB=matrix.dropped_KB[:, steps],
        column_N=matrix.column_N[cells] - first,
        expert_N=matrix.expert_N[cells],
        count_WN=matrix.count_WN[:, cells],
        dropped_WN=matrix.dropped_WN[:, cells],
    )


def halved(matrix: LoadMatrix, start: int | None = None) -> Halves | None:
    """The earlier and the later half of its steps, the odd one for the test, or those before and from step number `start` on.

    None where one of them is empty, as for a single step.
    """
    middle = matrix.num_steps // 2 if start is None else int(np.searchsorted(matrix.steps_B, start))
    if not 0 < middle < matrix.num_steps:
        return None
    return Halves(part_of(matrix, 0, middle), part_of(matrix, middle, matrix.num_steps))


def whole(matrices: Sequence[LoadMatrix], starts: Mapping[str, int] | None = None) -> Halves | None:
    """Of one layer over its domains: each gives its own earlier half to the history, for domains follow each other in a trace.

    `starts` is each domain's first test step, where it is not the middle one.
    """
    found = [halves for matrix in matrices if (halves := halved(matrix, starts[matrix.domain] if starts else None))]
    return Halves(pooled([one.history for one in found]), pooled([one.test for one in found])) if found else None


def crossed(matrices: Sequence[LoadMatrix]) -> dict[tuple[str, str], Halves]:
    """By domain of the history and of the test, where a layer has several; a domain of one step stands for itself as it is."""
    if len(matrices) < 2:
        return {}
    own = {matrix.domain: halved(matrix) or Halves(matrix, matrix) for matrix in matrices}
    single = {matrix.domain for matrix in matrices if matrix.num_steps < 2}
    return {
        (past, future): Halves(own[past].history, own[future].test)
        for past in own
        for future in own
        if past != future or past not in single
    }
