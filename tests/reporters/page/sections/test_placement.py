"""Figures of placements: loads before and after, gains with intervals, copies, placing again, and traffic of ranks."""

from math import log2
from pathlib import Path

import pytest

from moeprof.analysis.run_metrics import RunMetrics, of_replay
from moeprof.records.run.run import Run
from moeprof.reporters.page.figure import Figure, Hue
from moeprof.reporters.page.page import render
from moeprof.reporters.page.sections.before_and_after import beside, largest
from moeprof.reporters.page.sections.placement import DEVICE_LOADS, placement
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from tests.reporters.page.origins import check_formulas, check_numbers, check_values, figure_data, spoken, unexplained
from tests.reporters.sections.test_placement import rows_of, written
from tests.reporters.sections.test_traffic import run_of
from tests.studies.replay.test_along_trace import moving

EVERYTHING = {
    "r0-placement-loads",
    "r0-placement-devices",
    "r0-placement-steps",
    "r0-placement-replicas",
    "r0-placement-again",
    "r0-placement-moves",
    "r0-placement-traffic",
    "r0-placement-waits",
}


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Loads that move every 12 steps, placed once and again, with and without copies."""
    folder = tmp_path_factory.mktemp("placements")
    loads = read_loads(moving(folder / "moving.parquet"), expert_bytes=1000, token_bytes=64, tokens_per_step=[8, 16, 32])
    asked = PlacementOptions(
        balancers=["greedy", "eplb"], devices=[2, 4], every=[2, 4], window=8, replicas=1, replica_numbers=[1, 0, 2]
    )
    return replay_placements(loads, asked, folder / "run")


def figures_of(run: Run) -> dict[str, Figure]:
    """The figures of a replay by name."""
    return {block.name: block for block in placement(run, of_replay(run)) if isinstance(block, Figure)}


def test_every_value_is_that_of_its_row_or_of_its_formula(replayed: Run) -> None:
    page = render([replayed])
    assert set(check_values(replayed.path, page)) == EVERYTHING
    assert check_formulas(replayed.path, page) == {DEVICE_LOADS.formula}
    assert check_numbers(replayed.path, page) > 100
    assert unexplained(page) == []


def test_all_layers_and_devices_are_shown_before_and_after_in_doublings_of_the_even_load() -> None:
    heat = beside(["1", "3"], [[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]], DEVICE_LOADS)
    assert heat.columns == ["before 0", "before 1", " ", "after 0", "after 1"]
    assert heat.values == [[0, 0, None, -1, pytest.approx(log2(1.5))], [1, -10, None, 0, 0]]
    assert heat.diverging
    assert largest(["1", "3"], [[0.5, 0.5], [0.9, 0.1]]) == "1.8x even (layer 3)"


def test_the_best_balancers_are_in_colour_with_intervals_and_the_others_are_grey(replayed: Run) -> None:
    series = figures_of(replayed)["placement-steps"].views[0].series
    assert {each.name for each in series} == {"greedy", "eplb"}
    assert all(len(each.low) == len(each.values) == len(each.at) == 3 for each in series)
    assert [sorted(each.at) for each in series] == [[8, 16, 32]] * 2
    assert "test steps" in series[0].remarks[0]
    curves = figures_of(replayed)["placement-devices"].views[0].series
    assert {each.name: each.colour for each in curves if each.colour != "muted"} == {
        "floor without copies": "ink",
        **{name: Hue("balancer", name) for name in ("contiguous", "greedy", "eplb")},
    }


def test_gains_of_placing_again_stand_beside_those_of_placing_once(replayed: Run) -> None:
    view = figures_of(replayed)["placement-again"].views[0]
    assert {each.name for each in view.series} == {
        f"{schedule}, {copies} copies" for schedule in ("full", "incremental") for copies in ("with", "without")
    }
    assert all(each.at == [2, 4] for each in view.series)
    assert view.marks
    assert all(mark.name.endswith(", once") for mark in view.marks)
    assert view.readout.startswith("Without copies: ")
    assert "With copies: " in view.readout


def test_copies_of_tokens_from_device_to_device_sum_to_those_that_cross_devices(replayed: Run) -> None:
    results, views = of_replay(replayed), figures_of(replayed)["placement-traffic"].views
    for view in views:
        assert view.heat
        sent = sum(number for row in view.heat.values for number in row if number is not None)
        point = f"balancer={view.facets['placement']};devices=4"
        assert sent == pytest.approx(results.value("virtual_comm_tokens", phase="decode", point=point))


def test_ranks_are_shown_before_and_after_with_what_they_were_promised(tmp_path: Path) -> None:
    run = written(tmp_path / "run", rows_of(4), ranks=4)
    page = render([run])
    check_values(run.path, page)
    assert "log2(rank_tokens / its mean over ranks), at least -10" in check_formulas(run.path, page)
    (view,) = figure_data(page)["r0-placement-loads"]["views"]
    assert spoken(view).startswith("Most loaded rank of any layer: 3.2x even (layer 1) before, 2.4x even (layer 1) after.")
    waits = figure_data(page)["r0-placement-waits"]["views"][0]
    assert waits["series"][0]["values"] == [1e6, 2e6, 3e6, 4e6]
    assert spoken(waits).startswith("Longest: 4 ms on rank 3")


def test_bytes_from_rank_to_rank_are_those_of_the_recorded_collectives(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ranks=4)
    page = render([run])
    assert check_formulas(run.path, page) == {"bytes by source and destination / steps, mean over rounds"}
    heat = figure_data(page)["r0-placement-traffic"]["views"][0]["heat"]
    assert heat["values"][1] == [4 * 2**20, 10 * 2**20, 4 * 2**20, 4 * 2**20]


def test_a_run_of_one_rank_has_no_placement_to_show(run: Run) -> None:
    assert list(placement(run, RunMetrics.of(run))) == []
