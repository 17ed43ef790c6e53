"""Loads of all layers and devices under two placements, side by side in one heat map."""

from collections.abc import Sequence
from math import log2

from moeprof.reporters.cells import times
from moeprof.reporters.page.figure import Axis, FileSource, HeatCells

LOAD = Axis("log2(load / even)")
COLOURS = "Orange: above the even load of the layer, blue: below."
REACH = 2.0
"""Doublings at the ends of the colour scale; more is drawn as these, and written as it is."""
LEAST = -10.0
"""Doublings of a device with hardly any load, or none."""

PlacedLoads = Sequence[Sequence[float]]
"""A row of loads of all devices for every layer; some device has a load."""


def beside(layers: Sequence[str], before: PlacedLoads, after: PlacedLoads, source: FileSource) -> HeatCells:
    """The loads before, a gap, and those after, as doublings of the even load of their layer."""
    devices = len(before[0])
    columns = [f"before {device}" for device in range(devices)] + [" "] + [f"after {device}" for device in range(devices)]
    values = [[*doublings(old), None, *doublings(new)] for old, new in zip(before, after, strict=True)]
    names = ((-2.0, "1/4"), (-1.0, "1/2"), (0.0, "even"), (1.0, "2x"), (2.0, "4x"))
    return HeatCells(layers, columns, values, source, diverging=True, low=-REACH, high=REACH, steps=names)


def doublings(loads: Sequence[float]) -> list[float]:
    """log2(load / mean of all), at least LEAST."""
    even = sum(loads) / len(loads)
    return [max(log2(load / even), LEAST) if load > 0 else LEAST for load in loads]


def largest(layers: Sequence[str], loads: PlacedLoads) -> str:
    """`2.1x even (layer 4)`: the largest load of a device beside the even load of its layer."""
    ratio, layer = max((max(row) * len(row) / sum(row), layer) for layer, row in zip(layers, loads, strict=True))
    return f"{times(ratio)} even (layer {layer})"
