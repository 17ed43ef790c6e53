"""A comparison takes one screen: what got worse first, whatever is left out is counted, and a command prints all of it."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from moeprof.analysis.comparison.compare import Comparison
from moeprof.reporters.comparison_formats.short import versions
from moeprof.reporters.formats.short import LINES, first_that_fits

from .findings import comparison, found, hostile, one_of_each

COMMAND = "moeprof compare runs/before runs/after --full"


def shown(one: Comparison, width: int = 80) -> list[str]:
    """The lines on a terminal of this width."""
    return first_that_fits(versions(replace(one, repeat=COMMAND)), Console(width=width, file=io.StringIO())).splitlines()


def test_what_got_worse_is_before_what_got_better_and_what_is_undecided() -> None:
    assert shown(one_of_each(), 100) == [
        "",
        "moeprof compare: new against old",
        "1 of 4 gated metrics got worse. 1 is undecided: about 40 rounds per side would decide.",
        "verdict       metric             where           values                change [95%]",
        "worse         throughput         score, static   1,000 → 880 tokens/s  -12% [-14, -10]",
        "better        memory_total_peak  score, static   1000 → 880 B          -12%",
        "inconclusive  throughput         score, dynamic  1,000 → 880 tokens/s  -12% [-14, -10]",
        "Worse: 1, inconclusive: 1, better: 1, same: 1, not comparable: 2, removed: 1, new: 1.",
        f"Full comparison: `{COMMAND}`",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_comparison_of_any_size_takes_one_screen(width: int) -> None:
    layers = [found("worse", layer=str(layer), interval=(-0.14, -0.1)) for layer in range(800)]
    many = replace(comparison(*layers), remarks=[f"lm-tiny: package {number} 1.0, 2.0" for number in range(30)])
    for one in (one_of_each(), many, hostile(), comparison(), comparison(found("new"))):
        lines = shown(one, width)
        assert len(lines) <= LINES
        assert all(len(line) <= width for line in lines)
        assert lines[-1].endswith(f"`{COMMAND}`")


def test_whatever_is_left_out_is_counted() -> None:
    layers = [found("worse", layer=str(layer)) for layer in range(50)]
    lines = shown(replace(comparison(*layers), remarks=["one", "another"]), 120)
    rows = [line for line in lines if line.startswith("worse  ")]
    assert f"({50 - len(rows)} more changes)" in lines
    assert lines[-4:-2] == ["- one", "- another"]
    one_row = shown(replace(comparison(*layers), remarks=[f"remark {number}: {'long ' * 40}" for number in range(9)]))
    assert any(line.endswith("more remarks") for line in one_row)


def test_wholes_come_before_their_parts_and_the_largest_changes_first() -> None:
    parts = [found("worse", "region_share", region=name, change=1.0) for name in ("experts", "gate")]
    whole, small = found("worse", "waste_factor", change=0.2), found("worse", "memory_static", change=0.1)
    lines = shown(comparison(*parts, small, whole))
    assert [line.split()[1] for line in lines if line.startswith("worse  ")] == [
        *("waste_factor", "memory_static", "region_share", "region_share")
    ]


def test_the_recipe_is_named_if_there_are_several() -> None:
    assert not any("lm-tiny" in line for line in shown(comparison(found("worse"))))
    two = shown(comparison(found("worse"), found("worse", recipe="mt-tiny")), 120)
    assert [line[21:43].rstrip() for line in two if line.startswith("worse  ")] == [
        *("lm-tiny, score, static", "mt-tiny, score, static")
    ]


def test_without_a_row_the_verdict_names_the_metric() -> None:
    last = list(versions(comparison(found("worse"))))[-1]
    text = first_that_fits([last], Console(width=200, file=io.StringIO()))
    assert "1 of 1 gated metric got worse: throughput (lm-tiny, score, static) -12%." in text
    assert "(1 more" not in text


def test_where_nothing_is_comparable_the_commands_that_help_are_named_in_one_piece() -> None:
    lines = shown(comparison(found("not comparable", why="different recipes: load.batch_size")))
    assert lines[2] == "Nothing is comparable: different recipes: load.batch_size."
    assert any("`moeprof compare --run-both RECIPE --b SECTION.KEY=VALUE`" in line for line in lines)
    assert not any("--run-both" in line for line in shown(one_of_each()))
