"""Figures of caches: curves with a slider that says what a size costs, layers, and residency over time."""

from pathlib import Path

import pytest

from moeprof.analysis.run_metrics import of_replay
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent
from moeprof.reporters.page.encoding import encoded
from moeprof.reporters.page.figure import Figure, Hue
from moeprof.reporters.page.page import render
from moeprof.reporters.page.sections.caching import caching
from moeprof.studies.replay.study import CacheOptions
from tests.reporters.documents.test_replay import replayed
from tests.reporters.page.origins import check_formulas, check_numbers, check_values, figure_data, unexplained
from tests.reporters.sections.test_buffers import run_of


def curves_of(path: Path, asked: CacheOptions) -> Figure:
    """The figure of miss curves of a small replay."""
    run = replayed(path, asked)
    return next(block for block in caching(run, of_replay(run)) if isinstance(block, Figure))


@pytest.mark.parametrize("asked", [CacheOptions(), CacheOptions(budgets=[4000, 8000, 12000]), CacheOptions(policies=["min"])])
def test_every_value_of_a_replay_of_caches_is_that_of_its_row(tmp_path: Path, asked: CacheOptions) -> None:
    run = replayed(tmp_path, asked)
    page = render([run])
    assert check_numbers(run.path, page) > 50
    assert unexplained(page) == []
    figures = check_values(run.path, page)
    assert {"r0-caching-curves", "r0-caching-layers"} <= set(figures)
    assert ("r0-caching-residency" in figures) == (not asked.budgets and asked.policies != ["min"])
    check_formulas(run.path, page)


def test_the_recommended_policy_and_lru_are_in_colour_min_is_dashed_and_the_others_are_grey(tmp_path: Path) -> None:
    drawn = [series for series in curves_of(tmp_path, CacheOptions()).common if series.only == {"phase": "decode"}]
    colours = {series.name: series.colour for series in drawn}
    special = {name: colour for name, colour in colours.items() if colour != "muted"}
    assert len(colours) > len(special)
    assert special.pop("min") == "ink"
    assert {"lru", *special} == {name for name, colour in special.items() if colour == Hue("policy", name)}
    assert [series.colour for series in drawn[-len(special) - 1 :]].count("muted") == 0


def test_the_slider_starts_at_the_recommended_size_and_says_what_every_size_costs(tmp_path: Path) -> None:
    run = replayed(tmp_path)
    results = of_replay(run)
    figure = next(block for block in caching(run, results) if isinstance(block, Figure))
    assert figure.sliders == ["slots per layer"]
    assert [view.facets["slots per layer"] for view in figure.views if view.facets["phase"] == "decode"][:2] == [
        "1 slot",
        "2 slots",
    ]
    data = encoded(figure, "f")
    assert data["views"][data["first"]]["facets"] == figure.start.facets
    for view in figure.views:
        (dot,) = view.series
        policy, size = dot.name.split(", ")[0], int(dot.at[0])
        point = f"policy={policy};slots={size}"
        here = results.at(phase=view.facets["phase"], point=point)
        assert percent(here.value("miss_rate")) in view.readout
        assert f"{here.value('misses'):,.0f} misses" in view.readout
        assert f"{size} of 8 slots per layer" in view.readout
        for metric, write in (("transfer_time", duration), ("bytes_loaded", format_bytes)):
            number = here.or_none(metric)
            assert number is None or write(number) in view.readout


def test_a_curve_is_shown_in_its_phase_only(tmp_path: Path) -> None:
    figure = curves_of(tmp_path, CacheOptions())
    for view in figure.views:
        assert {series.only.get("phase", view.facets["phase"]) for series in figure.series_of(view)} == {view.facets["phase"]}


@pytest.mark.parametrize("swept", [True, False])
def test_residency_is_that_of_the_log_of_expert_loads(tmp_path: Path, swept: bool) -> None:
    run = run_of(tmp_path / "run", swept=swept)
    page = render([run])
    check_values(run.path, page)
    assert check_formulas(run.path, page) == {"share of the experts and steps of a cell after which the expert is resident"}
    heat = figure_data(page)["r0-caching-residency"]["views"][0]["heat"]
    assert (heat["rows"], heat["columns"]) == (["0", "1", "2"], ["0", "1", "2"])
    assert heat["values"] == [[1, 0, 1], [1, 1, 0], [0, 1, 1]]
    assert ("r0-caching-latency" in figure_data(page)) == swept
