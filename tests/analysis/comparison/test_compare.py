"""Which subjects belong together, and what a pipeline is told: 0, 3 or 4."""

import math
from typing import Any

import pytest

from moeprof.analysis.comparison.compare import Comparison, compare
from moeprof.analysis.comparison.measurement import Measurement, Number
from moeprof.analysis.comparison.verdicts import Rules
from moeprof.records.errors import UsageError
from tests.analysis.comparison.sides import MACHINE, STEADY, number, side, throughput

SAME = number("memory_static", 8)


def compared(before: list[Measurement], after: list[Measurement], **rules: Any) -> Comparison:
    return compare("main.json", before, "reports/now", after, Rules({}, **rules))


def codes(before: list[Number], after: list[Number], **changes: Any) -> tuple[int, int]:
    """The exit codes of two single subjects, and those under --strict."""
    comparison = compared([side(*before)], [side(*after, **changes)])
    return comparison.exit_code(strict=False), comparison.exit_code(strict=True)


def steady(speed: float = 1) -> Number:
    return throughput(*(1000 * speed * one for one in STEADY))


NOISY = [number("throughput", 1000, samples=[[700, 1400, 1000 + place]]) for place in (1, 2)]


# What the pipeline is told


def test_all_the_same_is_fine() -> None:
    assert codes([SAME, steady()], [SAME, steady()]) == (0, 0)


def test_something_better_is_fine() -> None:
    assert codes([SAME, steady()], [number("memory_static", 7), steady(1.2)]) == (0, 0)


def test_anything_worse_is_a_regression_whatever_else_got_better_or_is_undecided() -> None:
    assert codes([SAME, steady()], [SAME, steady(0.8)]) == (3, 3)
    assert codes([SAME, steady()], [number("memory_static", 9), steady(1.2)]) == (3, 3)
    assert codes([SAME, NOISY[0]], [number("memory_static", 9), NOISY[1]]) == (3, 3)


def test_what_is_inconclusive_fails_only_under_strict() -> None:
    """Also where nothing else was compared: noise alone must not turn a pipeline red."""
    assert codes([SAME, NOISY[0]], [SAME, NOISY[1]]) == (0, 4)
    assert codes([NOISY[0]], [NOISY[1]]) == (0, 4)


def test_what_was_removed_or_cannot_be_compared_fails_only_under_strict() -> None:
    assert codes([SAME, number("capacity", 3)], [SAME]) == (0, 4)
    assert codes([SAME, number("capacity", 3)], [SAME, number("capacity", 4)]) == (0, 4)
    assert codes([SAME, steady()], [SAME, steady(0.8)], machine=MACHINE | {"cpu": "Example 1"}) == (0, 4)
    assert codes([SAME, throughput()], [SAME, throughput()]) == (0, 4)


def test_what_is_new_is_fine_beside_something_that_is_the_same() -> None:
    assert codes([SAME], [SAME, number("capacity", 3)]) == (0, 0)


def test_times_that_are_only_described_never_fail() -> None:
    slow = [number("region_time", value, region="gate") for value in (100, 900)]
    assert codes([SAME, slow[0]], [SAME, slow[1]]) == (0, 0)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ([], [], {}),
        ([SAME], [], {}),
        ([], [SAME], {}),
        ([SAME], [number("flops_per_token", 8)], {}),
        ([SAME], [number("memory_static", 8, unit="KiB")], {}),
        ([SAME, steady()], [SAME, steady(0.5)], {"weights": "9" * 64}),
        ([SAME, steady()], [SAME, steady(0.5)], {"valid": False}),
        ([SAME, steady()], [SAME, steady(0.5)], {"command": "optimize"}),
        ([SAME, steady()], [SAME, steady(0.5)], {"recipe": "mt-tiny", "settings": {"name": "mt-tiny"}}),
        ([steady()], [steady(0.5)], {"machine": {}}),
        ([throughput()], [throughput()], {}),
        ([number("region_time", 7)], [number("region_time", 7)], {}),
    ],
)
def test_nothing_in_common_is_4_and_never_0(before: list[Number], after: list[Number], changes: dict[str, Any]) -> None:
    assert codes(before, after, **changes) == (4, 4)


def test_only_a_metric_that_nobody_has_is_nothing_in_common() -> None:
    comparison = compared([side(SAME)], [side(SAME)], only=["throughput"])
    assert (list(comparison.findings), comparison.exit_code(strict=False)) == ([], 4)


def test_no_subjects_at_all_are_nothing_in_common() -> None:
    assert compared([], []).exit_code(strict=False) == 4
    assert compared([side(SAME)], []).exit_code(strict=False) == 4
    assert compared([], [side(SAME)]).exit_code(strict=False) == 4


# What belongs together


def of(recipe: str, *numbers: Number, command: str = "characterize") -> Measurement:
    return side(*numbers, recipe=recipe, command=command, settings={"name": recipe})


def test_several_recipes_are_compared_each_with_itself() -> None:
    before = [of("lm-tiny", SAME), of("mt-tiny", SAME)]
    after = [of("mt-tiny", number("memory_static", 9)), of("lm-tiny", number("memory_static", 7))]
    comparison = compared(before, after)
    assert [(one.recipe, one.verdict) for one in comparison.findings] == [("mt-tiny", "worse"), ("lm-tiny", "better")]
    assert (comparison.baseline, comparison.candidate, comparison.exit_code(strict=False)) == ("main.json", "reports/now", 3)


def test_two_commands_of_a_recipe_are_kept_apart() -> None:
    before = [of("lm-tiny", SAME), of("lm-tiny", number("memory_static", 1), command="optimize")]
    after = [of("lm-tiny", number("memory_static", 1), command="optimize"), of("lm-tiny", SAME)]
    assert [one.verdict for one in compared(before, after).findings] == ["same", "same"]


def test_a_recipe_on_one_side_only_is_new_or_removed_as_a_whole() -> None:
    shared, extra = of("lm-tiny", SAME), of("mt-tiny", number("capacity", 3), SAME, steady())
    appeared, vanished = compared([shared], [extra, shared]), compared([extra, shared], [shared])
    assert [(one.recipe, one.metric, one.verdict) for one in appeared.findings] == [
        ("lm-tiny", "memory_static", "same"),
        ("mt-tiny", "capacity", "new"),
        ("mt-tiny", "memory_static", "new"),
        ("mt-tiny", "throughput", "new"),
    ]
    assert [one.verdict for one in vanished.findings] == ["same", *["removed"] * 3]
    assert [appeared.exit_code(strict=True), vanished.exit_code(strict=False), vanished.exit_code(strict=True)] == [0, 0, 4]


def test_of_a_recipe_on_one_side_only_the_wanted_metrics_are_told() -> None:
    shared, extra = of("lm-tiny", SAME), of("mt-tiny", number("capacity", 3), SAME)
    found = compared([shared], [extra, shared], only=["capacity"]).findings
    assert [(one.recipe, one.metric, one.verdict) for one in found] == [("mt-tiny", "capacity", "new")]


def test_two_single_subjects_are_compared_even_where_their_recipes_have_other_names() -> None:
    found = compared([of("lm-tiny", SAME)], [of("lm-fork", SAME)]).findings
    assert [(one.verdict, one.why) for one in found] == [("not comparable", "different recipes: name")]


@pytest.mark.parametrize("path", ["main.json", "reports/now"])
def test_a_recipe_that_stands_twice_on_a_side_is_refused(path: str) -> None:
    sides = {"main.json": [of("lm-tiny", SAME)], "reports/now": [of("lm-tiny", SAME)]}
    sides[path] = sides[path] * 2
    with pytest.raises(UsageError) as caught:
        compared(sides["main.json"], sides["reports/now"])
    assert (caught.value.what, caught.value.remedy) == (f"{path}: contains lm-tiny twice", "Pass each recipe once.")


def test_the_times_of_all_recipes_are_one_family() -> None:
    """Two recipes, one throughput each: the p value of either counts twice."""
    before, after = ([of("lm-tiny", steady(speed)), of("mt-tiny", steady(speed))] for speed in (1, 0.8))
    found = compared(before, after).findings
    assert [one.p for one in found] == pytest.approx([2 * 2 / math.comb(20, 10)] * 2)


def test_one_recipe_under_two_commands_is_told_apart() -> None:
    both = [of("lm-tiny", SAME), of("lm-tiny", SAME, command="optimize")]
    assert [one.command for one in compared(both, both).findings] == ["characterize", "optimize"]


# What is remarked


def test_other_versions_of_libraries_are_remarked_and_keep_nothing_from_being_compared() -> None:
    comparison = compared([side(SAME, packages={"torch": "2.11.0"})], [side(SAME, packages={"torch": "2.13.0"})])
    assert (comparison.remarks, comparison.exit_code(strict=True)) == (["lm-tiny: torch 2.11.0, 2.13.0"], 0)


def test_what_differs_between_sides_that_ran_in_turns_is_meant_and_remarked() -> None:
    changes = {"settings": {"name": "lm-tiny", "load": {"batch_size": 9}}, "weights": "9" * 64, "texts": {"prose": "8" * 64}}
    apart = compared([side(steady())], [side(steady(0.8), **changes)])
    together = compared([side(steady(), turns="t")], [side(steady(0.8), turns="t", **changes)])
    assert (apart.exit_code(strict=False), together.exit_code(strict=False)) == (4, 3)
    assert together.remarks == [
        "lm-tiny: different weights, cccccccccccc and 999999999999",
        "lm-tiny: different texts, prose, code",
        "lm-tiny: model {'dim': 64, 'experts': 16}, none",
        "lm-tiny: load.batch_size 8, 9",
    ]


def test_two_measurements_in_turns_are_not_each_others_sides() -> None:
    comparison = compared([side(steady(), turns="t")], [side(steady(0.8), weights="9" * 64, turns="u")])
    assert comparison.exit_code(strict=False) == 4


# What is asked of a comparison


def test_findings_are_asked_for_by_verdict_and_those_that_are_only_described_are_not_among_them() -> None:
    before = [SAME, number("flops_per_token", 5), number("capacity", 3), number("steps", 3), NOISY[0], number("region_time", 5)]
    after = [SAME, number("flops_per_token", 6), number("capacity", 4), NOISY[1], number("region_time", 9), number("fits", 1)]
    comparison = compared([side(*before)], [side(*after)])
    metrics = {
        verdict: [one.metric for one in comparison.of(verdict)]
        for verdict in ("better", "worse", "same", "inconclusive", "not comparable", "new", "removed")
    }
    assert metrics == {
        "better": [],
        "worse": ["flops_per_token"],
        "same": ["memory_static"],
        "inconclusive": ["throughput"],
        "not comparable": ["capacity"],
        "new": ["fits"],
        "removed": ["steps"],
    }
    assert {one.metric for one in comparison.gated} == {"flops_per_token", "memory_static", "throughput"}
