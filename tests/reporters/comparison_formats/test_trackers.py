"""What github-action-benchmark and Bencher are given, against what they read."""

from dataclasses import replace

import jsonschema
import pytest

from moeprof.reporters.comparison_formats.bencher import render as bencher
from moeprof.reporters.comparison_formats.benchmark_action import bigger, smaller
from moeprof.reporters.comparison_formats.names import distinct

from .findings import comparison, found, hostile, one_of_each, read_json

BENCHER = {
    "type": "object",
    "patternProperties": {
        ".+": {
            "type": "object",
            "patternProperties": {
                ".+": {
                    "type": "object",
                    "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
                    "required": ["value"],
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}
"""Bencher Metric Format as https://bencher.dev/docs/reference/bencher-metric-format publishes it; stricter in what is unknown."""

ENTRIES = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "value": {"type": "number"},
            **{name: {"type": "string"} for name in ("name", "unit", "range", "extra")},
        },
        "required": ["name", "unit", "value"],
        "additionalProperties": False,
    },
}
"""What github-action-benchmark takes from a custom file: `BenchmarkResult` of its src/extract.ts."""


def test_throughput_goes_where_bigger_is_better() -> None:
    entries = read_json(bigger(one_of_each()))
    jsonschema.validate(entries, ENTRIES)
    assert entries == [
        {
            "name": "lm-tiny (score, static): throughput",
            "unit": "tokens/s",
            "value": 880.0,
            "range": "95% interval 870 tokens/s to 890 tokens/s",
            "extra": "worse: 1,000 tokens/s -> 880 tokens/s, -12% [-14% to -10%], p 0.0013",
        },
        {
            "name": "lm-tiny (score, dynamic): throughput",
            "unit": "tokens/s",
            "value": 880.0,
            "extra": "inconclusive: 1,000 tokens/s -> 880 tokens/s, -12% [-14% to -10%], p 0.0013, "
            "about 40 rounds per side would decide",
        },
    ]


def test_memory_and_waste_go_where_smaller_is_better() -> None:
    entries = read_json(smaller(one_of_each()))
    jsonschema.validate(entries, ENTRIES)
    assert [(entry["name"], entry["value"]) for entry in entries] == [
        ("lm-tiny (score, static): memory_total_peak", 880.0),
        ("lm-tiny (score, static): waste_factor", 1000.0),
    ]


def test_bencher_is_given_value_and_interval_per_place_and_metric() -> None:
    document = read_json(bencher(one_of_each()))
    jsonschema.validate(document, BENCHER)
    assert document == {
        "lm-tiny (score, static)": {
            "throughput": {"value": 880.0, "lower_value": 870.0, "upper_value": 890.0},
            "memory_total_peak": {"value": 880.0},
            "waste_factor": {"value": 1000.0},
        },
        "lm-tiny (score, dynamic)": {"throughput": {"value": 880.0}},
    }


@pytest.mark.parametrize("render", [bigger, smaller, bencher])
def test_hostile_names_keep_to_the_schema_and_lose_nothing(render: "type[bencher]") -> None:
    document = read_json(render(hostile()))
    if render is bencher:
        jsonschema.validate(document, BENCHER)
        assert all(len(name) <= 1024 for name in document)
        assert sum(map(len, document.values())) == 8 * 13  # throughput and memory_static, four gated verdicts, each text
    else:
        jsonschema.validate(document, ENTRIES)
        assert len({entry["name"] for entry in document}) == len(document) == 4 * 13


def test_one_recipe_under_two_commands_keeps_both_numbers_each_with_its_interval() -> None:
    again = [replace(one, command="optimize", candidate=one.candidate and one.candidate + 1) for one in one_of_each().findings]
    document = read_json(bencher(comparison(*one_of_each().findings, *again)))
    assert list(document) == [
        "lm-tiny (score, static)",
        "lm-tiny (score, dynamic)",
        "lm-tiny (score, static) #2",
        "lm-tiny (score, dynamic) #2",
    ]
    first, second = (document[name]["throughput"] for name in ("lm-tiny (score, static)", "lm-tiny (score, static) #2"))
    assert second == {key: value + 1 for key, value in first.items()}
    assert len(first) == 3


def test_a_name_cannot_switch_alerts_off() -> None:
    for domain in ("x-bencher-ignore", "x" * 2000 + "-bencher-ignore"):
        (name,) = read_json(bencher(comparison(found("same", domain=domain, variant=""))))
        assert name.endswith(")")
        assert len(name) <= 1024


def test_what_is_not_gated_or_not_a_number_is_not_tracked() -> None:
    left_out = [
        found("new"),
        found("not comparable", "memory_static"),
        found("inconclusive", "throughput_low", gated=False),
        found("same", candidate=float("nan")),
    ]
    assert [read_json(render(comparison(*left_out))) for render in (bigger, smaller, bencher)] == [[], [], {}]


def test_distinct_names_do_not_collide_with_names_that_are_there() -> None:
    assert distinct(["a", "a", "a #2", "a"]) == ["a", "a #2", "a #2 #2", "a #3"]
