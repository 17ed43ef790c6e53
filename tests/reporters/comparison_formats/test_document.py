"""What a reader sees first, what is folded, and what is only counted."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from moeprof.records.run.machine_load import MachineLoad
from moeprof.reporters.comparison_formats.document import GROUPS, ROWS, document_of
from moeprof.reporters.comparison_formats.markdown import render
from moeprof.reporters.comparison_formats.terminal import rendered
from moeprof.reporters.comparison_formats.verdict import counts, headline, outcome, sentence, tally
from moeprof.reporters.comparison_formats.words import amounts, changed, described, one_line, signed
from moeprof.reporters.documents.document import Bullets, Details, Heading, Table

from .findings import comparison, found, hostile, one_of_each


def test_the_verdict_counts_what_got_worse_and_names_the_largest() -> None:
    worse = [found(layer=str(layer), change=-layer / 100) for layer in range(1, 6)]
    told = sentence(comparison(*worse, found("same")))
    assert told == (
        "5 of 6 gated metrics got worse: throughput (lm-tiny, score, static, layer 5) -5%, "
        "throughput (lm-tiny, score, static, layer 4) -4%, throughput (lm-tiny, score, static, layer 3) -3% and 2 more."
    )


def test_the_verdict_of_a_comparison_without_regression() -> None:
    one = comparison(found("same"), found("better", layer="1"))
    assert (outcome(one), sentence(one)) == ("fine", "None of 2 gated metrics got worse.")
    assert tally(one) == "Better: 1, same: 1."


def test_the_headline_says_what_is_undecided_and_why_after_what_got_worse() -> None:
    single = "1 process per side; at least 3 are needed to judge speed"
    open_ones = [found("inconclusive", layer=str(layer), why=single) for layer in range(3)]
    told = sentence(comparison(found("better"), *open_ones, found("worse", "memory_static")))
    assert told == f"1 of 5 gated metrics got worse: memory_static (lm-tiny, score, static) -12%. 3 are undecided: {single}."
    assert sentence(comparison(found("same"), open_ones[0])) == (
        f"None of 2 gated metrics got worse. 1 is undecided: {single}."
    )
    assert sentence(comparison(*open_ones)) == f"Nothing was decided: 3 gated metrics, all inconclusive: {single}."


def test_a_busy_machine_is_said_before_the_verdict_if_times_are_compared() -> None:
    busy = MachineLoad(before=0.5, others=0.4, stolen=0)
    timed, exact = (replace(comparison(one), machine_load=busy) for one in (found("same"), found("same", "waste_factor")))
    for text in (render(timed), rendered(timed, Console(width=200, file=io.StringIO()))):
        assert (
            "machine was busy: other processes used 40.0% of its processor time." in text.split("None of 1 gated metric got")[0]
        )
    assert headline(exact) == "None of 1 gated metric got worse."
    assert headline(replace(timed, machine_load=MachineLoad(others=0.01, stolen=0))) == "None of 1 gated metric got worse."


def test_where_nothing_was_compared_the_verdict_says_why() -> None:
    two = [
        found("not comparable", why="different machines: cpu A, B"),
        found("not comparable", why="different machines: cpu A, B"),
    ]
    one = comparison(*two, found("not comparable", why="different routing"))
    assert (outcome(one), sentence(one)) == ("undecided", "Nothing is comparable: different machines: cpu A, B.")
    assert sentence(comparison(found("new"))) == "Nothing is comparable: the two have no gated metric in common."
    undecided = comparison(found("inconclusive"))
    assert (outcome(undecided), sentence(undecided)) == (
        "undecided",
        "Nothing was decided: 1 gated metric, all inconclusive: the rounds do not show a difference.",
    )


def test_described_metrics_are_not_counted_as_inconclusive() -> None:
    assert counts(one_of_each()) == {
        "worse": 1,
        "inconclusive": 1,
        "better": 1,
        "same": 1,
        "not comparable": 2,
        "removed": 1,
        "new": 1,
    }


def test_the_table_holds_what_changed_worst_first() -> None:
    table = next(block for block in document_of(one_of_each()) if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["worse", "inconclusive", "better"]
    assert list(table.rows[0]) == [
        "worse",
        "lm-tiny",
        "score, static",
        "throughput",
        "1,000 tokens/s",
        "880 tokens/s",
        "-12% [-14% to -10%]",
        "0.0013",
        "",
    ]


def test_what_is_the_same_or_only_described_is_folded() -> None:
    same, described = (block for block in document_of(one_of_each()) if isinstance(block, Details))
    assert (same.title, described.title) == ("1 unchanged metrics", "2 timed metrics without a gate")
    tables = [table for block in (same, described) for table in block.blocks if isinstance(table, Table)]
    assert [row[3] for table in tables for row in table.rows] == ["waste_factor", "throughput_low", "throughput_high"]
    assert "p" not in tables[0].columns  # nothing stands in it


def test_what_cannot_be_compared_is_grouped_by_its_reason() -> None:
    many = [found("not comparable", "region_time", layer=str(layer), why="different machines") for layer in range(800)]
    few = [found("not comparable", metric, why="different routing") for metric in ("perplexity", "load_cv")]
    document = document_of(comparison(*few, *many))
    assert [block.text for block in document if isinstance(block, Heading)][1:] == ["Not comparable: 802"]
    assert next(block for block in document if isinstance(block, Bullets)).items == [
        "800 x different machines: region_time (800)",
        "2 x different routing: perplexity (1), load_cv (1)",
    ]


def test_a_document_stays_short_whatever_changed() -> None:
    worse = [found(layer=str(layer)) for layer in range(800)]
    reasons = [found("not comparable", why=f"its unit changed: {layer}") for layer in range(800)]
    document = document_of(comparison(*worse, *reasons))
    table = next(block for block in document if isinstance(block, Table))
    assert (len(table.rows), table.caption) == (ROWS, "700 more rows; `--format json` lists all.")
    bullets = next(block for block in document if isinstance(block, Bullets))
    assert len(bullets.items) == GROUPS + 1
    assert bullets.items[-1] == "788 more for 788 other reasons"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_shows_no_line_wider_than_itself(width: int) -> None:
    for one in (one_of_each(), hostile()):
        lines = rendered(one, Console(width=width, file=io.StringIO())).splitlines()
        assert all(len(line) <= width for line in lines)


def test_a_narrow_terminal_tells_rows_in_lines_and_a_wide_one_in_columns() -> None:
    narrow, wide = (rendered(one_of_each(), Console(width=width, file=io.StringIO())) for width in (80, 200))
    assert "- worse, lm-tiny, score, static, throughput: baseline 1,000 tokens/s" in narrow
    assert "worse         lm-tiny  score, static   throughput" in wide
    assert "report.md" not in narrow


@pytest.mark.parametrize(
    ("change", "text"),
    [(-0.123456, "-12.3%"), (0.0, "+0%"), (1e-9, "+1e-07%"), (12.3456, "+1,235%"), (9.99, "+999%"), (float("inf"), "-")],
)
def test_changes_are_written_with_three_digits(change: float, text: str) -> None:
    assert signed(change) == text


def test_values_that_differ_never_look_the_same() -> None:
    close = found("worse", "memory_static", baseline=12345678.0, candidate=12345690.0)
    assert amounts(close) == ("12,345,678 bytes", "12,345,690 bytes")
    assert amounts(found("worse", "memory_static", baseline=2.0**20, candidate=2.0**21)) == ("1 MiB", "2 MiB")


def test_a_change_from_nothing_says_so() -> None:
    assert changed(found("worse", "dead_experts", baseline=0.0, candidate=2.0, change=None)) == "from 0"
    assert described(found("removed", "dead_experts", baseline=2.0)) == "2 experts in the baseline only"
    assert described(found("new", "dead_experts", candidate=2.0)) == "2 experts in the candidate only"


def test_a_line_holds_no_control_character_and_is_cut() -> None:
    assert one_line("a\n\x1b[31mb\u202e\ud800") == r"a\n\x1b[31mb\u202e\ud800"
    assert one_line("##[error]x ###") == r"#\x23[error]x #\x23#"
    assert one_line("abcdef", 4) == "abc…"


def test_remarks_and_the_spread_from_process_to_process_are_told() -> None:
    told = replace(comparison(found("worse", spread=(0.02, 0.123))), remarks=["lm-tiny: torch 2.11, 2.13", "a\x1b[31m"])
    text = render(told)
    assert "spread between processes: baseline 2%, candidate 12%" in text
    assert "lm-tiny: torch 2.11, 2.13" in text
    assert "\x1b" not in text
