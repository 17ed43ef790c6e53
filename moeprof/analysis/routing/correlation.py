"""Pearson correlation of the experts' shares over steps: which experts of a layer are busy at the same time."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.records.arrays import Floats

SPARSE = 0.25
"""Up to this share of cells that are not 0, a sparse product is faster than a dense one."""
LOST_DIGITS = 1e-6
"""The least share of sum(x^2) that must remain after the mean is subtracted, so that ten of sixteen digits are left."""


@dataclass(frozen=True, eq=False)
class Correlation:
    """The correlation coefficients of all pairs of experts that have one."""

    values_EE: Floats
    """Pearson's r over steps; 0 in the rows and columns of experts without one."""
    defined_E: npt.NDArray[np.bool_]
    """Whether an expert's share varies; a constant share has no correlation."""

    @property
    def experts(self) -> npt.NDArray[np.int64]:
        """The M experts that have coefficients, ascending, (M,)."""
        return np.flatnonzero(self.defined_E)

    @property
    def values_MM(self) -> Floats:
        """The coefficients among `experts`."""
        return self.values_EE[np.ix_(self.experts, self.experts)]


FOUND: WeakKeyDictionary[LoadMatrix, Correlation] = WeakKeyDictionary()
"""Of matrices that are in use: a table, a map and a figure of a layer share one computation."""


def correlation(matrix: LoadMatrix) -> Correlation:
    """Pearson's r over steps of the experts' shares A[m, b]; computed once for a matrix."""
    if matrix not in FOUND:
        FOUND[matrix] = computed(matrix)
    return FOUND[matrix]


def computed(matrix: LoadMatrix) -> Correlation:
    """The correlation, from the sums over steps of the products of deviations."""
    defined_E = varying(matrix)
    products_EE = products_by_cell(matrix, defined_E)
    if products_EE is None:
        products_EE = products_by_step(matrix)
    norm_E = np.sqrt(np.where(defined_E, products_EE.diagonal(), 1))
    values_EE = np.clip(products_EE / np.outer(norm_E, norm_E), -1, 1)
    np.fill_diagonal(values_EE, 1)
    return Correlation(np.where(np.outer(defined_E, defined_E), values_EE, 0.0), defined_E)


def varying(matrix: LoadMatrix) -> npt.NDArray[np.bool_]:
    """Whether an expert's share differs between any two steps, (E,); compared exactly, which is safe because division rounds correctly."""
    least_E, most_E = np.full(matrix.num_experts, np.inf), np.zeros(matrix.num_experts)
    np.minimum.at(least_E, matrix.expert_N, matrix.shares_N)
    np.maximum.at(most_E, matrix.expert_N, matrix.shares_N)
    times_E = np.bincount(matrix.expert_N, minlength=matrix.num_experts)
    return np.asarray(most_E > np.where(times_E < matrix.num_steps, 0, least_E))


def products_by_step(matrix: LoadMatrix) -> Floats:
    """Sums over steps of the products of two experts' deviations from their mean shares, (E, E)."""
    deviations_EB = matrix.shares_EB
    deviations_EB -= deviations_EB.mean(axis=1, keepdims=True)
    return np.asarray(deviations_EB @ deviations_EB.T)


def products_by_cell(matrix: LoadMatrix, defined_E: npt.NDArray[np.bool_]) -> Floats | None:
    """The products of deviations from the cells that are not 0, (E, E), as sum(x y) - B mean(x) mean(y); fast for steps of few tokens.

    None if the matrix is not sparse, or if the difference would lose too many digits for an expert that hardly varies.
    """
    from scipy.sparse import coo_array

    shape = (matrix.num_experts, matrix.num_steps)
    if len(matrix.count_N) > SPARSE * shape[0] * shape[1]:
        return None
    shares = coo_array((matrix.shares_N, (matrix.expert_N, matrix.column_N)), shape).tocsr()
    squares_EE = (shares @ shares.T).toarray()
    sum_E = np.bincount(matrix.expert_N, matrix.shares_N, minlength=matrix.num_experts)
    products_EE = squares_EE - np.outer(sum_E, sum_E / matrix.num_steps)
    kept_E = products_EE.diagonal() > LOST_DIGITS * squares_EE.diagonal()
    return products_EE if kept_E[defined_E].all() else None


def clustered(found: Correlation) -> list[int]:
    """The experts that have coefficients, those that are busy together side by side.

    Average linkage over the distance 1 - r, rounded so that the last bits of a sum do not turn the order.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    experts = found.experts
    if len(experts) < 3:
        return [int(expert) for expert in experts]
    distance_MM = np.round(1 - found.values_MM, 9)
    leaves = leaves_list(linkage(squareform((distance_MM + distance_MM.T) / 2), method="average"))
    return [int(expert) for expert in experts[leaves]]


def strongest_pairs(found: Correlation, count: int) -> list[tuple[int, int, float]]:
    """At most `count` pairs (a < b, r) with r furthest from 0; ties by id."""
    first, second = np.triu_indices(len(found.experts), k=1)
    strength = found.values_MM[first, second]
    order = np.argsort(-np.abs(np.round(strength, 9)), kind="stable")[:count]
    experts = found.experts
    return [(int(experts[first[at]]), int(experts[second[at]]), float(strength[at])) for at in order]
