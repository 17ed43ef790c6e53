"""Colours of a document: what several figures and runs show has the same colour in all of them."""

from collections.abc import Iterable, Mapping

from moeprof.reporters.page.figure import Colour, Figure, Hue, Series

Palette = Mapping[Hue, int]
"""Indices of categorical colours; those of a kind are in the order of appearance."""


def palette_of(figures: Iterable[Figure]) -> Palette:
    """The colours of everything that the figures of a document name."""
    found: dict[str, dict[Hue, int]] = {}
    for figure in figures:
        for series in all_series(figure):
            if isinstance(hue := hue_of(figure, series), Hue):
                of_kind = found.setdefault(hue.kind, {})
                of_kind.setdefault(hue, len(of_kind))
    return {hue: index for of_kind in found.values() for hue, index in of_kind.items()}


def hue_of(figure: Figure, series: Series) -> Colour:
    """What the colour of a series stands for: by default its name, in figures of this name."""
    return Hue(figure.name, series.name) if series.colour is None else series.colour


def all_series(figure: Figure) -> Iterable[Series]:
    """The common series, and those of every view."""
    yield from figure.common
    for view in figure.views:
        yield from view.series
