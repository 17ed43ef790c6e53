"""The JSON document says what the comparison says, number by number."""

from moeprof.reporters.comparison_formats.json import render

from .findings import HOSTILE, comparison, found, hostile, one_of_each, read_json


def test_the_head_names_both_sides_the_verdict_and_the_exit_codes() -> None:
    document = read_json(render(one_of_each()))
    findings = document.pop("findings")
    assert document == {
        "baseline": "old",
        "candidate": "new",
        "verdict": "worse",
        "sentence": "1 of 4 gated metrics got worse: throughput (lm-tiny, score, static) -12% [-14% to -10%]. "
        "1 is undecided: about 40 rounds per side would decide.",
        "exit_code": 3,
        "exit_code_strict": 3,
        "counts": {"worse": 1, "inconclusive": 1, "better": 1, "same": 1, "not comparable": 2, "removed": 1, "new": 1},
        "remarks": [],
    }
    assert len(findings) == 10


def test_the_exit_codes_differ_where_something_is_undecided() -> None:
    document = read_json(render(comparison(found("same"), found("inconclusive", layer="1"))))
    assert (document["verdict"], document["exit_code"], document["exit_code_strict"]) == ("fine", 0, 4)


def test_a_finding_has_its_address_and_numbers() -> None:
    assert read_json(render(one_of_each()))["findings"][0] == {
        "verdict": "worse",
        "gated": True,
        "recipe": "lm-tiny",
        "command": "characterize",
        "workload": "lm",
        "phase": "score",
        "variant": "static",
        "metric": "throughput",
        "unit": "tokens/s",
        "kind": "timed",
        "better": "higher",
        "baseline": 1000.0,
        "candidate": 880.0,
        "change": -0.12,
        "interval": [-0.14, -0.1],
        "p": 0.0013,
        "spread": None,
        "why": "",
    }


def test_what_is_not_finite_is_null() -> None:
    infinite = float("inf")
    odd = found(baseline=None, candidate=float("nan"), change=infinite, interval=(-infinite, 0.5), p=float("nan"))
    (entry,) = read_json(render(comparison(odd)))["findings"]
    assert [entry[name] for name in ("baseline", "candidate", "change", "interval", "p")] == [None] * 3 + [[None, 0.5], None]


def test_names_read_back_as_they_were() -> None:
    domains = {entry["domain"] for entry in read_json(render(hostile()))["findings"]}
    assert domains == {text.replace("\ud800", "\ufffd") for text in HOSTILE}


def test_the_spread_from_process_to_process_is_told_per_side() -> None:
    (entry,) = read_json(render(comparison(found("same", spread=(0.02, None)))))["findings"]
    assert entry["spread"] == [0.02, None]
