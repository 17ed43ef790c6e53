"""The page of a comparison shows what got worse first, with intervals."""

import json
from dataclasses import replace
from math import isclose
from typing import Any

from moeprof.records.metrics.registry import KEYS
from moeprof.reporters.comparison_formats.registry import render
from tests.reporters.page.origins import OPERATIONS, figure_data, tree

from .findings import comparison, one_of_each


def test_differences_are_sorted_and_have_the_values_of_the_findings() -> None:
    made = one_of_each()
    (data,) = figure_data(render(made, "html")).values()
    (view,) = data["views"]
    drawn = {series["name"]: dict(zip(series["remarks"], series["values"], strict=True)) for series in view["series"]}
    wanted = [one for one in made.gated if one.verdict != "same" and one.change is not None]
    assert wanted
    assert sorted(value for values in drawn.values() for value in values.values()) == sorted(one.change for one in wanted)
    assert [name for name in drawn if name in ("worse", "better")] == ["worse", "better"]


def test_an_interval_is_drawn_and_a_change_without_one_is_a_dot() -> None:
    one = next(one for one in one_of_each().of("worse") if one.change is not None)
    ends = {}
    for interval in ((-0.5, -0.25), None):
        (data,) = figure_data(render(comparison(replace(one, change=-0.375, interval=interval, gated=True)), "html")).values()
        ends[interval] = [data["views"][0]["series"][0][end] for end in ("low", "high")]
    assert ends == {(-0.5, -0.25): [[-0.5], [-0.25]], None: [[-0.375], [-0.375]]}


def test_numbers_of_the_tables_lead_to_the_rows_of_both_sides_and_changes_to_a_formula_over_them() -> None:
    made = one_of_each()
    rows = {
        (side, one.recipe, tuple(cell for cell in one.address)): value
        for one in made.findings
        for side, value in (("baseline", one.baseline), ("candidate", one.candidate))
    }

    def evaluated(origin: Any) -> float | None:
        match origin:
            case {"side": "both", "formula": formula}:
                assert "medians over rounds" in formula
                return next(one.change for one in made.findings if one.interval is not None)
            case {"side": side, "recipe": recipe}:
                return rows[side, recipe, tuple(origin.get(name, "") for name in KEYS)]
            case [sign, left, right]:
                values = evaluated(left), evaluated(right)
                assert None not in values
                return OPERATIONS[sign](*values)
            case _:
                return float(origin)

    found = tree(render(made, "html")).xpath("//td[@data-origin]")
    assert len(found) > 2 * len([one for one in made.gated if one.verdict != "same"])
    for element in found:
        value = evaluated(json.loads(element.get("data-origin")))
        assert value is not None
        assert isclose(value, float(element.get("data-value")), rel_tol=1e-9)
    assert {"[", "{"} == {
        element.get("data-origin")[0] for element in found
    }  # a change that follows from rows, and one that does not


def test_nothing_to_compare_is_a_page_without_figures() -> None:
    made = tree(render(comparison(), "html"))
    assert not list(made.iter("figure"))
    assert "against" in made.findtext(".//h1")
