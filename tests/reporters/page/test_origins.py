"""Every number of a page leads to the rows of metrics.csv that it comes from, or to a file and a formula that has been computed again."""

import json
from contextlib import nullcontext
from typing import Any

import pytest

from moeprof.records.marks import MarkedText, marked_numbers, pieces, unmarked
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.metrics.row import row_key
from moeprof.records.run.run import Run
from moeprof.reporters.cells import cell, percent
from moeprof.reporters.page import page as rendering
from moeprof.reporters.page.encoding import encoded
from moeprof.reporters.page.figure import Axis, Figure, FileSource, Series, View
from moeprof.reporters.page.page import render
from tests.reporters.page.origins import (
    Recorded,
    check_formulas,
    check_numbers,
    check_values,
    equal,
    figure_data,
    tree,
    unexplained,
    words,
)


def test_every_number_with_an_origin_is_what_its_rows_say_and_what_is_shown(run: Run, page: str) -> None:
    assert check_numbers(run.path, page) > 100


def test_numbers_in_sentences_have_origins_too(page: str) -> None:
    assert tree(page).xpath("//figure/p//@data-origin")
    assert unexplained(page) == []
    assert unexplained("<p class='readout'>2 slots, <b data-origin='1'>3%</b>, 95% interval 4 ms</p>") != []


def test_marks_of_numbers_are_only_where_the_page_asks_for_them_and_never_in_it(run: Run, page: str) -> None:
    assert unmarked(page) == page
    number = RecordedNumber(0.125, row_key("miss_rate", phase="decode"))
    assert f"{percent(number)} {number:.2f}" == "12.5% 0.12"
    with marked_numbers():
        text = f"of {percent(number)}, {cell(number, percent)} and {percent(0.5)} and {number:.2f}"
    origin = json.dumps({"phase": "decode", "metric": "miss_rate"})
    assert [piece for piece in pieces(text) if isinstance(piece, MarkedText)] == [
        MarkedText(shown, origin, "0.125") for shown in ("12.5%", "12.5%", "0.12")
    ]
    assert unmarked(text) == "of 12.5%, 12.5% and 50.0% and 0.12"


def test_the_words_of_a_page_are_the_same_with_origins_and_without(
    run: Run, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "marked_numbers", nullcontext)
    assert words(render([run])) == words(page)


def test_every_value_of_a_figure_is_that_of_its_row_or_of_its_formula(run: Run, page: str) -> None:
    figures = check_values(run.path, page)
    assert {"r0-time-regions", "r0-time-layers", "r0-memory-step", "r0-batch-front", "r0-quality-layers"} <= set(figures)


def test_every_formula_over_a_file_is_computed_again(run: Run, page: str) -> None:
    assert {"step_latency by round", "smallest batch that does not fit"} <= check_formulas(run.path, page)


def test_a_formula_that_is_wrong_is_found(run: Run, page: str) -> None:
    """The tests above can fail: another value at the same address is not equal to it."""
    recorded, data = Recorded(run.path), figure_data(page)["r0-time-regions"]
    series = data["views"][0]["series"][0]
    first, second = series["origins"]["values"][:2]
    assert not equal(recorded.evaluate(first), recorded.evaluate(second))
    with pytest.raises(KeyError):
        recorded.evaluate(first | {"variant": "none"})


def test_a_cell_keeps_the_origin_of_its_number_when_text_is_added() -> None:
    number = RecordedNumber(0.25, row_key("miss_rate", phase="decode"))
    text = cell(number / 2, percent)
    assert (str(text + " [a]"), str("about " + text)) == ("12.5% [a]", "about 12.5%")
    assert [getattr(each, "value", None) for each in (text, text + " [a]", "about " + text)] == [0.125] * 3
    assert not hasattr(cell(0.25, percent), "origin")


def figure(values: list[float], source: FileSource | None = None) -> Figure:
    """A figure of one series."""
    series = Series("a", list(range(len(values))), values, source=source)
    return Figure("f", "t", "s", Axis("x"), Axis("y"), [View(series=[series])])


def test_a_figure_whose_values_have_no_origin_is_refused() -> None:
    row = RecordedNumber(2.0, row_key("throughput"))
    with pytest.raises(ValueError, match="figure f: values have no origin"):
        encoded(figure([row, 3.0]), "f")
    assert encoded(figure([row]), "f")["views"][0]["series"][0]["origins"] == {"values": [{"metric": "throughput"}]}
    with_source: dict[str, Any] = encoded(figure([3.0], FileSource("rounds.parquet", "time_ns")), "f")["views"][0]["series"][0]
    assert with_source["source"] == {"file": "rounds.parquet", "formula": "time_ns"}
