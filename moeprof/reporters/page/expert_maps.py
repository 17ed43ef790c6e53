"""Heat maps of recorded routing: loads of experts by layer and over steps, and which experts are busy in the same steps.

Every figure is bounded, however long the trace: steps are joined, and experts with few choices are left out, as its caption says.

Shape suffixes: E experts, B steps, S stretches of steps, M experts in a map.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from moeprof.analysis.routing.characterization import LayersByDomain
from moeprof.analysis.routing.correlation import Correlation, clustered, correlation
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix
from moeprof.records.arrays import Floats
from moeprof.reporters.page.figure import FileSource, HeatCells, View
from moeprof.reporters.page.selection import ALL_DOMAINS

MOST_CELLS = 400_000
"""Cells of all views of a figure."""
FEWEST_STEPS, MOST_STEPS = 24, 200
"""Columns over steps; more steps are joined, the fewer columns the more experts and layers there are."""
MOST_CORRELATED = 64
"""Experts in a map of correlations."""

EVEN_STEPS = tuple((2.0**power, f"{2**power}x" if power >= 0 else f"1/{2**-power}x") for power in range(-3, 4))
"""Ticks of the scale of loads: one for each doubling, from an eighth of the even load to eight times it."""


@dataclass(frozen=True)
class RoutedPhase:
    """The recorded routing of a phase."""

    by_domain: LayersByDomain
    whole: Sequence[LoadMatrix]
    """For each layer the matrix over all domains."""
    file: str
    """The file that it was read from, with wildcards."""


Phases = Mapping[str, RoutedPhase]


def load_views(phases: Phases) -> Iterator[View]:
    """The loads of all layers, over all domains and in each of them if there are several."""
    for name, phase in phases.items():
        yield View({"phase": name, "domain": ALL_DOMAINS}, heat=load_cells(phase.whole, phase.file))
        for domain in shown_domains(phases, phase):
            own = [matrix for matrices in phase.by_domain for matrix in matrices if matrix.domain == domain]
            yield View({"phase": name, "domain": domain}, heat=load_cells(own, phase.file))


def shown_domains(phases: Phases, phase: RoutedPhase) -> list[str]:
    """The domains of a phase that have views of their own: all of them, or none if there is one, or if the cells are too many."""
    found = list(dict.fromkeys(matrix.domain for matrices in phase.by_domain for matrix in matrices if matrix.domain))
    cells = sum(matrix.num_experts for each in phases.values() for matrices in each.by_domain for matrix in matrices)
    return found if len(found) > 1 and cells <= MOST_CELLS else []


def load_cells(matrices: Sequence[LoadMatrix], file: str) -> HeatCells:
    """A row for every layer: the load of each expert beside the even load."""
    return HeatCells(
        [matrix.layer for matrix in matrices],
        [str(expert) for expert in range(matrices[0].num_experts)],
        [short(beside_even(matrix.counts_E)) for matrix in matrices],
        FileSource(file, "choices of the expert / mean choices of the experts of the layer"),
        diverging=True,
        low=EVEN_STEPS[0][0],
        high=EVEN_STEPS[-1][0],
        sortable=True,
        steps=EVEN_STEPS,
    )


def beside_even(counts_E: Counts) -> Floats:
    """Loads of experts over their mean, (E,)."""
    return np.asarray(counts_E * (len(counts_E) / counts_E.sum()))


def short(values: Floats) -> list[float]:
    """Numbers of three significant digits, so that the page remains small."""
    return [float(f"{value:.3g}") for value in values.tolist()]


def step_views(phases: Phases) -> Iterator[View]:
    """The loads over steps of every layer that has several steps."""
    rows = sum(matrix.num_experts for phase in phases.values() for matrix in phase.whole)
    stretches = min(MOST_STEPS, max(FEWEST_STEPS, MOST_CELLS // max(rows, 1)))
    for name, phase in phases.items():
        for matrix in phase.whole:
            if matrix.num_steps > 1:
                yield View({"phase": name, "layer": f"layer {matrix.layer}"}, heat=step_cells(matrix, stretches, phase.file))


def step_cells(matrix: LoadMatrix, most: int, file: str) -> HeatCells:
    """A row for every expert, the most loaded first, and a column for every step, or for a stretch of steps."""
    stretches = min(most, matrix.num_steps)
    stretch_B = np.arange(matrix.num_steps) * stretches // matrix.num_steps
    cell_N = stretch_B[matrix.column_N] * matrix.num_experts + matrix.expert_N
    counts_SE = np.bincount(cell_N, matrix.count_N, minlength=stretches * matrix.num_experts).reshape(stretches, -1)
    loads_SE = counts_SE * (matrix.num_experts / counts_SE.sum(axis=1, keepdims=True))
    order = hottest(matrix)
    return HeatCells(
        [str(expert) for expert in order],
        stretch_names(matrix.steps_B, stretch_B),
        [short(loads_SE[:, expert]) for expert in order],
        FileSource(file, "choices of the expert / mean choices of the experts in the steps"),
        diverging=True,
        low=EVEN_STEPS[0][0],
        high=EVEN_STEPS[-1][0],
        steps=EVEN_STEPS,
    )


def hottest(matrix: LoadMatrix) -> list[int]:
    """All experts by falling load, ties by id."""
    return [int(expert) for expert in np.argsort(-matrix.counts_E, kind="stable")]


def stretch_names(steps_B: Counts, stretch_B: Counts) -> list[str]:
    """`7`, or `7 to 12`: the recorded numbers of the steps of every stretch."""
    starts = np.flatnonzero(np.diff(stretch_B, prepend=-1))
    ends = np.append(starts[1:], len(stretch_B)) - 1
    return [
        f"{first}" if first == last else f"{first} to {last}"
        for first, last in zip(steps_B[starts], steps_B[ends], strict=True)
    ]


def correlation_views(phases: Phases) -> Iterator[View]:
    """The correlations of every layer of which at least three experts have some."""
    maps = sum(len(phase.whole) for phase in phases.values())
    most = min(MOST_CORRELATED, isqrt(MOST_CELLS // max(maps, 1)))
    for name, phase in phases.items():
        for matrix in phase.whole:
            found = among_hottest(matrix, most)
            if found.defined_E.sum() >= 3:
                yield View({"phase": name, "layer": f"layer {matrix.layer}"}, heat=correlation_cells(found, phase.file))


def among_hottest(matrix: LoadMatrix, most: int) -> Correlation:
    """The correlations among the most loaded experts that have some."""
    found = correlation(matrix)
    order = [expert for expert in hottest(matrix) if found.defined_E[expert]][:most]
    return Correlation(found.values_EE, np.isin(np.arange(matrix.num_experts), order))


def correlation_cells(found: Correlation, file: str) -> HeatCells:
    """Pearson's r of all pairs, experts that are busy together side by side."""
    order = clustered(found)
    names = [str(expert) for expert in order]
    return HeatCells(
        names,
        names,
        np.round(found.values_EE[np.ix_(order, order)], 3).tolist(),
        FileSource(file, "Pearson correlation over steps of the shares of two experts"),
        diverging=True,
        low=-1,
        high=1,
    )
