"""Annotations as the runner reads them, and a summary that GitHub takes."""

import pytest

from moeprof.reporters.comparison_formats.github import ANNOTATIONS, SUMMARY_BYTES, annotations, command, summary
from moeprof.reporters.comparison_formats.markdown import render as markdown

from .findings import HOSTILE, comparison, found, one_of_each, read_commands


def test_each_verdict_has_its_level() -> None:
    commands = read_commands(annotations(one_of_each()))
    assert [(level, properties) for level, properties, _ in commands] == [
        ("error", {"title": "throughput: worse"}),
        ("warning", {"title": "throughput: inconclusive"}),
        ("notice", {"title": "memory_total_peak: better"}),
    ]
    assert commands[0][2] == (
        "lm-tiny, score, static: 1,000 tokens/s -> 880 tokens/s, -12% [-14% to -10%], p 0.0013"  # percent signs read back
    )


def test_a_command_is_escaped_as_github_documents() -> None:
    assert command("error", "a: 5%, b", "c: 5%,\r\nd") == "::error title=a%3A 5%25%2C b::c: 5%25,%0D%0Ad"


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() or "\n" in text])
def test_escaped_text_reads_back_whatever_it_is(text: str) -> None:
    assert read_commands(command("notice", text, text)) == [("notice", {"title": text}, text)]


def test_only_as_many_as_github_shows_and_the_rest_counted() -> None:
    commands = read_commands(annotations(comparison(*(found(layer=str(layer), change=-layer / 1e3) for layer in range(25)))))
    assert len(commands) == ANNOTATIONS
    assert "layer 24" in commands[0][2]
    assert commands[-1] == ("error", {"title": "16 more: worse"}, "16 more metrics are worse; the summary lists them.")
    assert len(annotations(comparison(*(found(layer=str(layer)) for layer in range(10)))).splitlines()) == 10


def test_nothing_to_say_is_an_empty_log_and_nothing_compared_an_error() -> None:
    assert annotations(comparison(found("same"))) == ""
    (level, _, message), *others = read_commands(annotations(comparison(found("new"))))
    assert (level, message) == ("error", "Nothing is comparable: the two have no gated metric in common.")
    assert not others


def test_the_summary_is_the_markdown_report_where_it_fits() -> None:
    assert summary(one_of_each()) == markdown(one_of_each())


def test_a_summary_that_github_would_drop_leaves_out_what_is_folded() -> None:
    same = [found("same", layer=str(layer), domain="é" * 40) for layer in range(8000)]
    large = comparison(found("worse"), *same)
    assert len(markdown(large).encode()) > SUMMARY_BYTES
    text = summary(large)
    assert len(text.encode()) < 2000
    assert "1 of 8001 gated metrics got worse" in text
    assert "<details>" not in text


def test_even_the_worst_summary_fits() -> None:
    long = dict.fromkeys(("recipe", "domain", "variant", "unit", "why"), "😀*" * 500)
    worst = [found("worse", "dead_experts", layer=str(layer), **long) for layer in range(500)]
    assert len(summary(comparison(*worst)).encode()) <= SUMMARY_BYTES
