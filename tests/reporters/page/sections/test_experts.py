"""The figures of experts: from the routing of a trace and of a model, whole in their data and bounded in their size."""

from pathlib import Path
from typing import Any

import pytest

from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, pooled
from moeprof.cli import group
from moeprof.records.run.run import Run
from moeprof.reporters.page import expert_maps
from moeprof.reporters.page.expert_maps import RoutedPhase, correlation_views, load_views, step_views
from moeprof.reporters.page.figure import HeatCells, View
from moeprof.reporters.page.page import render
from tests.analysis.traces import steps_of, trace_of
from tests.reporters.page.origins import check_formulas, check_numbers, check_values, figure_data, tree, unexplained
from tests.studies.replay.logs import route_log

DECODE = [[0, 1], [0, 2], [0, 3], [2, 4]] * 20
PREFILL = [[1, 2], [1, 3], [0, 4]]


def characterized(file: Path, out: Path) -> Run:
    """The run of `moeprof characterize FILE`."""
    assert group.run(["characterize", str(file), "--quiet", "--out", str(out)]) == 0
    return Run.open(out)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two layers of twelve experts, a prefill of three tokens, eighty decode steps."""
    folder = tmp_path_factory.mktemp("experts")
    return characterized(route_log(folder / "talk.route.csv", DECODE, prefill=PREFILL, layers=2, experts=12), folder / "run")


@pytest.fixture(scope="module")
def figures(traced: Run) -> dict[str, Any]:
    """The data of the figures of its page."""
    return figure_data(render([traced]))


def test_every_figure_of_a_trace_is_what_its_rows_and_files_say(traced: Run, figures: dict[str, Any]) -> None:
    names = ("load", "steps", "active", "distinct", "hot-set", "locality", "correlation")
    assert [name for name in figures if "experts" in name] == [f"r0-experts-{name}" for name in names]
    page = render([traced])
    check_values(traced.path, page)
    assert check_numbers(traced.path, page) > 100
    assert unexplained(page) == []
    assert len([words for words in check_formulas(traced.path, render([traced])) if "expert" in words]) == 3


def test_the_figures_of_a_model_are_of_its_routing(run: Run, page: str) -> None:
    found = figure_data(page)
    assert {"r0-experts-load", "r0-experts-steps", "r0-experts-active", "r0-experts-locality"} <= set(found)
    assert "r0-experts-distinct" not in found
    assert {view["heat"]["source"]["file"] for view in found["r0-experts-load"]["views"]} >= {
        "routing/decode-static-rank*.parquet"
    }


def view_of(figure: dict[str, Any], **facets: str) -> dict[str, Any]:
    """The view with these facets."""
    (found,) = [view for view in figure["views"] if facets.items() <= view["facets"].items()]
    return dict(found)


def test_the_load_of_an_expert_is_beside_the_even_load(figures: dict[str, Any]) -> None:
    heat = view_of(figures["r0-experts-load"], phase="decode")["heat"]
    assert heat["values"][0] == [4.5, 1.5, 3, 1.5, 1.5, *[0] * 7]
    assert heat["values"][1] == [0, *heat["values"][0][:-1]]
    assert (heat["diverging"], heat["sortable"], heat["low"], heat["high"]) == (True, True, 0.125, 8)


def test_used_experts_are_beside_the_most_that_the_tokens_reach(figures: dict[str, Any]) -> None:
    found = {series["name"]: series for series in view_of(figures["r0-experts-active"], phase="prefill")["series"]}
    assert found["used"]["values"] == [5, 5]
    assert found["at most: min(E, k n)"]["values"] == [6, 6]
    assert found["used"]["remarks"] == ["58.3% are idle"] * 2


def test_distinct_experts_are_beside_the_uniform_expectation(figures: dict[str, Any]) -> None:
    view = view_of(figures["r0-experts-distinct"], phase="decode", layer="all layers")
    found = {series["name"]: dict(zip(series["at"], series["values"], strict=True)) for series in view["series"]}
    assert {size: found["measured, consecutive tokens"][size] for size in (1, 2, 4)} == {1: 2, 2: 3.5, 4: 5}
    assert found["if all experts were equally likely"][2] == pytest.approx(12 * (1 - (10 / 12) ** 2))


def test_the_hot_set_has_its_interval_and_its_answer(traced: Run, figures: dict[str, Any]) -> None:
    measured = view_of(figures["r0-experts-hot-set"], phase="decode", layer="all layers")["series"][0]
    assert all(
        low <= value <= high for low, value, high in zip(*(measured[end] for end in ("low", "values", "high")), strict=True)
    )
    assert "Hot set (decode): yes." in tree(render([traced])).text_content()


def phase_of(*experts: list[int], num_experts: int = 8) -> RoutedPhase:
    """One layer whose steps have a token each."""
    by_domain = list(layer_matrices(trace_of(steps_of(*experts), num_experts=num_experts)))
    whole: list[LoadMatrix] = [pooled(own) for own in by_domain]
    return RoutedPhase(by_domain, whole, "f.parquet")


def heat_of(view: View) -> HeatCells:
    """The heat map of a view."""
    assert view.heat is not None
    return view.heat


def test_long_traces_have_stretches_of_steps_and_hot_experts_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_maps, "MOST_STEPS", 2)
    (view,) = step_views({"decode": phase_of([0, 1], [0, 2], [0, 1], [3, 1], [3, 1])})
    heat = heat_of(view)
    assert heat.columns == ["0 to 2", "3 to 4"]
    assert heat.rows[:4] == ["1", "0", "3", "2"]
    assert heat.values[:4] == [[2.67, 4], [4, 0], [0, 4], [1.33, 0]]


def test_cells_over_steps_are_bounded_for_any_number_of_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_maps, "MOST_CELLS", 32 * 8)
    phase = phase_of(*[[step % 7, 7] for step in range(100)])
    (view,) = step_views({"decode": phase})
    assert len(heat_of(view).columns) == 32
    monkeypatch.setattr(expert_maps, "MOST_CELLS", 8)
    (view,) = step_views({"decode": phase})
    assert len(heat_of(view).columns) == expert_maps.FEWEST_STEPS


def test_only_the_most_loaded_experts_are_correlated_and_companions_are_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_maps, "MOST_CORRELATED", 4)
    (view,) = correlation_views({"decode": phase_of([0, 5], [1, 6], [0, 5], [1, 6], [2, 7])})
    heat = heat_of(view)
    assert sorted(heat.rows) == ["0", "1", "5", "6"]
    assert {frozenset(heat.rows[:2]), frozenset(heat.rows[2:])} == {frozenset("05"), frozenset("16")}
    assert (heat.values[0][1], heat.low, heat.high) == (1, -1, 1)


def test_a_single_step_has_neither_a_map_over_steps_nor_correlations() -> None:
    phases = {"prefill": phase_of([0, 1])}
    assert [len(list(views(phases))) for views in (load_views, step_views, correlation_views)] == [1, 0, 0]


def test_domains_have_views_of_their_own_unless_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*steps_of([0, 1], domain="fr"), *steps_of([2, 3], domain="de")]
    by_domain = list(layer_matrices(trace_of(rows, num_experts=8)))
    phases = {"decode": RoutedPhase(by_domain, [pooled(own) for own in by_domain], "f.parquet")}
    assert [view.facets["domain"] for view in load_views(phases)] == ["all domains", "fr", "de"]
    monkeypatch.setattr(expert_maps, "MOST_CELLS", 8)
    assert [view.facets["domain"] for view in load_views(phases)] == ["all domains"]


def test_counts_are_drawn_from_the_file_that_has_them(tmp_path: Path) -> None:
    file = tmp_path / "counts.csv"
    file.write_text("layer,expert,count\n" + "".join(f"0,{expert},{count}\n" for expert, count in enumerate([6, 0, 1, 1])))
    run = characterized(file, tmp_path / "run")
    page = render([run])
    found = figure_data(page)
    heat = found["r0-experts-load"]["views"][0]["heat"]
    assert (heat["values"], heat["source"]["file"]) == ([[3, 0, 0.5, 0.5]], "expert_counts.parquet")
    assert not {"r0-experts-steps", "r0-experts-correlation", "r0-experts-active"} & set(found)
    assert check_formulas(run.path, page)
