"""Every number of a page leads to the rows of metrics.csv that it comes from, or to a file and a formula that has been computed again."""

import json
import re
from typing import Any

import pytest

from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.metrics.row import row_key
from moeprof.records.run.run import Run
from moeprof.records.units import FACTORS
from moeprof.reporters.cells import cell, percent
from moeprof.reporters.page.encoding import encoded
from moeprof.reporters.page.figure import Axis, Figure, FileSource, Series, View
from tests.reporters.page.origins import Recorded, check_formulas, check_values, equal, figure_data, tree


def shown_value(text: str) -> float:
    """The first number of a text in base units."""
    found = re.match(r"[<>≥= ]*(-?[\d,]*\.?\d+(?:e[+-]?\d+)?)\s?([A-Za-z%]*)", text.strip())
    assert found, text
    units = {
        "%": 0.01,
        "ns": 1.0,
        "us": 1e3,
        "ms": 1e6,
        "s": 1e9,
        "k": 1e3,
        "x": 1.0,
        **{u: float(f) for u, f in FACTORS.items()},
    }
    counts = {"B": 1e9, "M": 1e6} if "." in found[1] and found[2] in ("B", "M") else {}
    return float(found[1].replace(",", "")) * (units | counts).get(found[2], 1.0)


def test_every_number_with_an_origin_is_what_its_rows_say_and_what_is_shown(run: Run, page: str) -> None:
    recorded, found = Recorded(run.path), tree(page).xpath("//*[@data-origin]")
    assert len(found) > 100
    for element in found:
        value = recorded.evaluate(json.loads(element.get("data-origin")))
        assert equal(value, float(element.get("data-value")))
        assert shown_value(element.text_content()) == pytest.approx(value, rel=0.006, abs=0.0006), element.get("data-origin")


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
