"""The same thing has the same colour in every figure and run of a document."""

import json

from moeprof.reporters.page.figure import Axis, Figure, FileSource, Series, View
from moeprof.reporters.page.page import PagePart, RunPart, page
from moeprof.reporters.page.palette import palette_of
from moeprof.reporters.page.selection import variant_colour
from tests.reporters.page.origins import tree


def figure(name: str, *series: Series) -> Figure:
    """A figure of these series."""
    return Figure(name, "t", "s", Axis("x"), Axis("y"), [View(series=series)])


def series(name: str, *, variant: str = "") -> Series:
    """One value, in the colour of a variant, or of its name."""
    return Series(name, [1], [1.0], colour=variant_colour(variant) if variant else None, source=FileSource("f.parquet", "x"))


def test_a_variant_has_the_same_colour_in_every_figure_and_in_every_run() -> None:
    first = figure("speed", series("static", variant="static"), series("dynamic", variant="dynamic"))
    second = figure("speed", series("tutel", variant="tutel"), series("dynamic", variant="dynamic"))
    best = figure("best", series("dynamic, best batch", variant="dynamic"))
    parts = [PagePart("time", "Time", False, [RunPart(0, [first, best]), RunPart(1, [second])])]
    found = {
        each.get("id"): [one["colour"] for one in json.loads(each.findtext("script"))["views"][0]["series"]]
        for each in tree(page("t", [], parts)).iter("figure")
    }
    assert found == {"r0-speed": [0, 1], "r0-best": [1], "r1-speed": [2, 1]}


def test_a_series_that_some_runs_lack_does_not_shift_the_colours_of_the_others() -> None:
    whole, part = figure("step", *map(series, ("weights", "activations", "buffers"))), figure("step", series("buffers"))
    other = figure("other", series("buffers"))
    found = palette_of([whole, part, other])
    assert sorted((hue.kind, hue.name, index) for hue, index in found.items()) == [
        ("other", "buffers", 0),
        ("step", "activations", 1),
        ("step", "buffers", 2),
        ("step", "weights", 0),
    ]
