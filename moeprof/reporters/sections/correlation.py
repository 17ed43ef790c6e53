"""The correlation matrix of a layer's experts, ordered by cluster, as a heat map.

Shape suffixes: M experts that have coefficients, G groups of neighbours among them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from moeprof.analysis.routing.correlation import clustered, correlation
from moeprof.analysis.routing.load_matrix import LoadMatrix, pooled
from moeprof.records.arrays import Floats
from moeprof.reporters.documents.document import HeatMap

LINES = 32
"""The maximum number of rows of a map; more experts are shown in groups of neighbours."""


def correlation_maps(layers: Sequence[Sequence[LoadMatrix]]) -> Iterator[HeatMap]:
    """A map per layer, given the load matrices of its domains; none for a layer with fewer than three varying experts."""
    for matrices in layers:
        found = correlation(pooled(matrices))
        order = clustered(found)
        if len(order) < 3:
            continue
        values_GG, groups = (
            grouped(found.values_EE[np.ix_(order, order)]),
            np.array_split(np.array(order), min(len(order), LINES)),
        )
        yield HeatMap(
            f"Layer {matrices[0].layer}: correlation of expert loads",
            [f"{group[0]}" if len(group) == 1 else f"{group[0]}.." for group in groups],
            np.maximum(values_GG, 0).tolist(),
            1.0,
            "Pearson correlation of shares over steps, experts ordered by cluster. Scale: blank 0 or negative … █ 1. Squares on the "
            "diagonal are experts that anti-correlation placement puts on different devices.",
        )


def grouped(values_MM: Floats) -> Floats:
    """Means over groups of neighbours, (G, G), G being at most LINES."""
    parts = np.array_split(np.arange(len(values_MM)), min(len(values_MM), LINES))
    return np.array([[values_MM[np.ix_(rows, columns)].mean() for columns in parts] for rows in parts])
