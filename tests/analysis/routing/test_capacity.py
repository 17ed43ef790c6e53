"""Rows handed to experts over rows needed: the paper's waste, per domain and over all of them."""

from pathlib import Path

import pytest

from moeprof.analysis.routing.capacity import (
    StepSize,
    capacity_metrics,
    capacity_rows,
    first_judged_steps,
    step_rows,
    step_sizes_of,
)
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.gating import capacity, expert_slots
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.raw_tables import STEPS
from moeprof.records.run.run import Run
from tests.records.run.runs import raw_run


def recipe_of(*, experts: int, fraction: float, top_k: int = 2) -> Recipe:
    sets = [f"model.experts={experts}", f"gating.capacity_fraction={fraction}", f"gating.top_k={top_k}"]
    return load_recipe("lm-tiny", overrides=sets)


LM, MT = recipe_of(experts=512, fraction=0.05), recipe_of(experts=128, fraction=1.0)


def under_static(recipe: Recipe, rows: int, tokens: int | None = None, domain: str = "prose") -> StepSize:
    """A step of S rows as static gating computes it."""
    slots = expert_slots(recipe.model.experts, recipe.gating.capacity_fraction, rows)
    return StepSize(domain, rows, rows if tokens is None else tokens, slots)


@pytest.mark.parametrize(
    ("recipe", "rows", "slots", "waste", "per_expert"),
    [
        (LM, 2048, 52_736, 12.875, 103),
        (LM, 4096, 104_960, 12.8125, 205),
        (MT, 512, 65_536, 64.0, 512),
        (MT, 2048, 262_144, 64.0, 2048),
    ],
)
def test_statement_1_the_papers_waste(recipe: Recipe, rows: int, slots: int, waste: float, per_expert: int) -> None:
    assert capacity_metrics(recipe, "static", [under_static(recipe, rows)]) == {
        "step_rows": rows,
        "expert_slots": slots,
        "waste_factor": waste,
        "capacity": per_expert,
    }


@pytest.mark.parametrize("variant", ["static", "static+bmm", "tutel", "tutel+greedy"])
def test_statement_2_under_static_and_tutel_there_are_as_many_slots_as_the_formula_says(variant: str) -> None:
    recipe, sizes = recipe_of(experts=24, fraction=0.3), [7, 10, 513]
    told = capacity_metrics(recipe, variant, [under_static(recipe, rows) for rows in sizes])
    assert told["expert_slots"] == sum(24 * capacity(0.3, rows) for rows in sizes) / 3
    assert told["capacity"] == (3 + 3 + 154) / 3
    assert told["waste_factor"] == sum(24 * capacity(0.3, rows) for rows in sizes) / (2 * sum(sizes))


@pytest.mark.parametrize("variant", ["dynamic", "dynamic+grouped_mm", "dynamic+loop+buffered"])
def test_dynamic_gating_wastes_nothing_and_has_no_capacity(variant: str) -> None:
    sizes = [StepSize("prose", 64, tokens, 2 * tokens) for tokens in (64, 50, 1)]
    assert capacity_metrics(LM, variant, sizes) == {
        "step_rows": 64,
        "expert_slots": 2 * 115 / 3,
        "waste_factor": 1.0,
    }


def test_tutel_without_drops_has_no_capacity_of_its_own_either() -> None:
    """Four experts, busiest load 5 of 8 choices: 20 rows for 8."""
    recipe = recipe_of(experts=4, fraction=1.0, top_k=1)
    assert capacity_metrics(recipe, "tutel-dropless", [StepSize("prose", 8, 8, 20)]) == {
        "step_rows": 8,
        "expert_slots": 20,
        "waste_factor": 2.5,
    }


def test_padding_fills_slots_and_needs_none() -> None:
    told = capacity_metrics(LM, "static", [under_static(LM, 2048, tokens=1024)])
    assert told["waste_factor"] == 2 * 12.875


def test_waste_is_all_rows_over_all_needed_and_not_a_mean_of_ratios() -> None:
    told = capacity_metrics(MT, "static", [StepSize("prose", 10, 10, 100), StepSize("prose", 30, 30, 60)])
    assert told["waste_factor"] == 160 / 80
    assert told["expert_slots"] == 80


def test_layers_that_computed_differently_come_as_their_mean() -> None:
    assert capacity_metrics(MT, "tutel-dropless", [StepSize("prose", 8, 8, 37.5)])["expert_slots"] == 37.5


def test_steps_of_nothing_but_padding_are_left_out() -> None:
    step, padding = StepSize("prose", 64, 64, 128), StepSize("prose", 64, 0, 0)
    assert capacity_metrics(LM, "dynamic", [step, padding]) == capacity_metrics(LM, "dynamic", [step])
    assert capacity_metrics(LM, "dynamic", [padding]) == {}
    assert capacity_metrics(LM, "dynamic", []) == {}


def test_every_domain_has_its_rows_and_all_of_them_together_have_too() -> None:
    sizes = [StepSize("prose", 10, 10, 40), StepSize("code", 20, 20, 120), StepSize("prose", 10, 10, 60)]
    rows = list(capacity_rows(MT, "score", "dynamic", sizes))
    assert {(row.workload, row.phase, row.variant, row.layer) for row in rows} == {("lm", "score", "dynamic", "")}
    found = {(row.domain, row.metric): row.value for row in rows}
    assert {domain: found[domain, "waste_factor"] for domain in ("prose", "code", "")} == {
        "prose": 100 / 40,
        "code": 120 / 40,
        "": 220 / 80,
    }
    assert found["", "expert_slots"] == 220 / 3
    assert len(rows) == len(found) == 9


def test_a_domain_of_nothing_but_padding_has_no_rows() -> None:
    sizes = [StepSize("prose", 10, 10, 40), StepSize("code", 10, 0, 40)]
    assert {row.domain for row in capacity_rows(MT, "score", "dynamic", sizes)} == {"prose", ""}


def recorded(path: Path, *ranks: list[StepSize], recipe: Recipe = LM, variant: str = "static", layers: int = 1) -> Run:
    """A run of which every rank recorded its steps, each with the same rows in every layer."""
    rows = [
        {"phase": "score", "variant": variant, "domain": size.domain, "layer": str(layer), "rank": rank, "step": number}
        | {"rows": size.rows, "tokens": int(size.tokens), "expert_rows": int(size.slots), "judged": number >= 2}
        for rank, sizes in enumerate(ranks)
        for number, size in enumerate(sizes)
        for layer in range(layers)
    ]
    return raw_run(path, {STEPS: rows}, recipe=recipe)


def test_slots_of_a_rank_with_nothing_but_padding_are_wasted_too(tmp_path: Path) -> None:
    busy, idle = [under_static(LM, 2048), under_static(LM, 2048)], [under_static(LM, 2048), under_static(LM, 2048, tokens=0)]
    steps = step_sizes_of(recorded(tmp_path / "run", busy, idle, layers=3))["score", "static"]
    assert [step.tokens for step in steps] == [2048, 1024]
    assert capacity_metrics(LM, "static", steps) == {
        "step_rows": 2048,
        "expert_slots": 52_736,
        "waste_factor": 12.875 * 4 / 3,
        "capacity": 103,
    }


def test_layers_of_one_step_are_averaged(tmp_path: Path) -> None:
    cells = {"phase": "score", "variant": "tutel-dropless", "domain": "prose", "rows": 8, "tokens": 8}
    rows = [cells | {"layer": layer, "expert_rows": count} for layer, count in (("1", 20), ("3", 35))]
    run = raw_run(tmp_path / "run", {STEPS: rows})
    assert step_sizes_of(run) == {("score", "tutel-dropless"): [StepSize("prose", 8, 8, 27.5)]}


def test_the_rows_of_a_run_are_those_of_all_its_recorded_steps(tmp_path: Path) -> None:
    sizes = [StepSize("prose", 10, 10, 40), StepSize("code", 20, 20, 120), StepSize("prose", 10, 10, 60)]
    run = recorded(tmp_path / "run", sizes, recipe=MT, variant="dynamic")
    assert list(step_rows(run)) == [(row, []) for row in capacity_rows(MT, "score", "dynamic", sizes)]


def test_a_domain_is_judged_from_its_first_step_that_no_placement_was_made_from(tmp_path: Path) -> None:
    sizes = [StepSize(domain, 10, 10, 40) for domain in ("prose", "code", "prose", "code", "prose")]
    run = recorded(tmp_path / "run", sizes, sizes)
    assert first_judged_steps(run, "score") == {"prose": 2, "code": 3}
    assert first_judged_steps(run, "decode") == {}
