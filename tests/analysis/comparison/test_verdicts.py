"""Every verdict by a minimal example: which numbers are compared, by which rule, and what is said where they are not."""

from typing import Any

import pytest

from moeprof.analysis.comparison.measurement import Measurement, Number
from moeprof.analysis.comparison.verdicts import Finding, Rules, findings
from moeprof.records.metrics.registry import METRICS
from tests.analysis.comparison.sides import MACHINE, ROUTING, SETTINGS, STEADY, TEXTS, number, side, throughput

RULES = Rules({})
KINDS = ("exact", "routed", "modelled", "forced")


def only(before: Measurement, after: Measurement, rules: Rules = RULES) -> Finding:
    (found,) = findings([(before, after)], rules)
    return found


def of(ours: Number, theirs: Number, rules: Rules = RULES, **changes: Any) -> Finding:
    """The finding of one number, the candidate's subject changed."""
    return only(side(ours), side(theirs, **changes), rules)


def steady(speed: float = 1, **keys: Any) -> Number:
    """Ten rounds around 1,000 tokens a second, or around `speed` times as many."""
    return throughput(*(1000 * speed * one for one in STEADY), **keys)


def metrics_that_are(better: str) -> list[str]:
    return [metric.name for metric in METRICS.values() if metric.better == better and metric.kind != "timed"]


# By value


@pytest.mark.parametrize("kind", KINDS)
def test_an_equal_value_is_the_same(kind: str) -> None:
    found = of(number("waste_factor", 12.8, kind=kind), number("waste_factor", 12.8, kind=kind))
    assert (found.verdict, found.gated, found.change, found.baseline, found.candidate) == ("same", True, 0, 12.8, 12.8)


@pytest.mark.parametrize("metric", metrics_that_are("lower"))
def test_less_of_what_should_be_low_is_better_and_more_is_worse(metric: str) -> None:
    less, more = number(metric, 4), number(metric, 5)
    assert (of(more, less).verdict, of(less, more).verdict) == ("better", "worse")
    assert of(less, more).gated
    assert of(less, more).change == pytest.approx(0.25)


@pytest.mark.parametrize("metric", metrics_that_are("higher"))
def test_more_of_what_should_be_high_is_better_and_less_is_worse(metric: str) -> None:
    less, more = number(metric, 4), number(metric, 5)
    assert (of(more, less).verdict, of(less, more).verdict) == ("worse", "better")


@pytest.mark.parametrize("metric", metrics_that_are("neither"))
def test_a_change_that_is_neither_is_told_and_never_gated(metric: str) -> None:
    found = of(number(metric, 4), number(metric, 5))
    assert (found.verdict, found.gated, found.why) == ("not comparable", False, "changed, but neither direction is better")
    assert (of(number(metric, 4), number(metric, 4)).verdict, found.p, found.interval) == ("same", None, None)


def test_the_smallest_change_of_an_exact_number_counts_unless_a_threshold_allows_it() -> None:
    ours, theirs = number("memory_static", 1000), number("memory_static", 1010)
    assert of(ours, number("memory_static", 1000.0000000000001)).verdict == "worse"
    assert of(ours, theirs).verdict == "worse"
    assert of(ours, theirs, Rules({"memory_static": 0.02})).verdict == "same"
    assert of(ours, theirs, Rules({"memory_static": 0.005})).verdict == "worse"
    assert of(ours, theirs, Rules({"flops_per_token": 0.02})).verdict == "worse"


def test_a_baseline_of_zero_has_no_relative_change_but_a_direction() -> None:
    zero, some = number("routing_flips", 0), number("routing_flips", 3)
    assert (of(zero, some).verdict, of(zero, some).change) == ("worse", None)
    assert (of(some, zero).verdict, of(some, zero).change) == ("better", -1)
    assert (of(zero, zero).verdict, of(zero, zero).change) == ("same", 0)
    assert of(zero, some, Rules({"routing_flips": 0.5})).verdict == "worse"


# Routing


def dropped(value: float, **keys: str) -> Number:
    return number("dropped_fraction", value, **{"phase": "score", "variant": "static", **keys})


@pytest.mark.parametrize("value", [0.25, 0.5])
def test_a_routed_number_is_not_compared_where_the_routers_decided_otherwise(value: float) -> None:
    found = of(dropped(0.25), dropped(value), routing=ROUTING | {"score/static": "0" * 64})
    assert (found.verdict, found.gated, found.why) == ("not comparable", False, "different routing")


def test_an_exact_number_is_compared_all_the_same() -> None:
    routing = ROUTING | {"score/static": "0" * 64}
    assert of(number("memory_static", 8), number("memory_static", 9), routing=routing).verdict == "worse"


@pytest.mark.parametrize("other", ["decode/static", "score/dynamic"])
def test_the_routing_of_another_phase_or_variant_does_not_matter(other: str) -> None:
    routing = ROUTING | {other: "0" * 64}
    assert of(dropped(0.25), dropped(0.5), routing=routing).verdict == "worse"


@pytest.mark.parametrize("other", ROUTING)
def test_a_number_over_all_phases_and_variants_needs_the_routing_of_all(other: str) -> None:
    ours, theirs = dropped(0.25, phase="", variant=""), dropped(0.5, phase="", variant="")
    assert of(ours, theirs).verdict == "worse"
    assert of(ours, theirs, routing=ROUTING | {other: "0" * 64}).verdict == "not comparable"


def test_a_routing_that_one_side_has_not_recorded_is_another_one() -> None:
    routing = {name: digest for name, digest in ROUTING.items() if name != "score/static"}
    assert of(dropped(0.25), dropped(0.25), routing=routing).why == "different routing"
    assert only(side(dropped(0.25), routing=routing), side(dropped(0.25))).why == "different routing"


def test_of_a_variant_without_routing_that_of_its_phase_counts() -> None:
    ours, theirs = (number("perplexity", value, phase="score", variant="dense") for value in (5.0, 6.0))
    assert of(ours, theirs, routing=ROUTING | {"decode/static": "0" * 64}).verdict == "worse"
    assert of(ours, theirs, routing=ROUTING | {"score/static": "0" * 64}).verdict == "not comparable"


@pytest.mark.parametrize("phase", ["prefill", "decode", "all"])
def test_a_replay_depends_on_the_routing_of_every_phase(phase: str) -> None:
    ours, theirs = (number("misses", value, phase=phase, variant="static") for value in (5.0, 6.0))
    routing = {"encode/static": "1" * 64, "decode/static": "2" * 64}
    found = only(side(ours, routing=routing, command="replay"), side(theirs, routing=routing, command="replay"))
    assert found.verdict == "worse"
    for changed in routing:
        other = side(theirs, routing=routing | {changed: "0" * 64}, command="replay")
        assert only(side(ours, routing=routing, command="replay"), other).why == "different routing"


def test_replays_that_were_made_otherwise_have_nothing_in_common() -> None:
    ours, theirs = (
        side(number("misses", 5, phase="all"), command="replay", settings={"access": access})
        for access in ("batch", "sequential")
    )
    assert only(ours, theirs).why == "different settings: access"


# Whole sides


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"command": "optimize"}, "different commands: characterize, optimize"),
        ({"settings": SETTINGS | {"load": {"batch_size": 9}}}, "different recipes: load.batch_size"),
        ({"settings": SETTINGS | {"load": {"batch_size": 8, "fill": True}}}, "different recipes: load.fill"),
        (
            {"settings": {"name": "x", "model": {"dim": 1, "experts": 2}, "load": {}, "data": {"fill": True}}},
            "different recipes: name, model.dim, model.experts and 2 more keys",
        ),
        ({"texts": TEXTS | {"code": "9" * 64}}, "different text 'code': bbbbbbbbbbbb, 999999999999"),
        ({"texts": {"prose": "a" * 64}}, "different text 'code': bbbbbbbbbbbb, none"),
        ({"texts": TEXTS | {"law": "9" * 64}}, "different text 'law': none, 999999999999"),
        ({"weights": "9" * 64}, "different weights: cccccccccccc, 999999999999"),
        ({"weights": ""}, "different weights: cccccccccccc, none"),
        (
            {"valid": False, "reasons": ["interrupted", "too few rounds"]},
            "the candidate is not valid: interrupted; too few rounds",
        ),
        ({"valid": False}, "the candidate is not valid: no reason given"),
    ],
)
def test_sides_that_did_not_do_the_same_have_nothing_in_common(changes: dict[str, Any], why: str) -> None:
    numbers = [number("memory_static", 8), dropped(0.25), steady(), number("region_time", 7, region="gate")]
    found = findings([(side(*numbers), side(*numbers, **changes))], Rules({}, allow_machine_mismatch=True))
    assert [(one.verdict, one.gated, one.why) for one in found] == [("not comparable", False, why)] * 4


def test_an_invalid_baseline_is_told_as_such() -> None:
    found = only(side(steady(), valid=False, reasons=["ranks disagree"]), side(steady()))
    assert found.why == "the baseline is not valid: ranks disagree"


def test_another_machine_matters_to_the_clock_only_and_may_be_allowed() -> None:
    machine = MACHINE | {"cpu": "Example 1", "gpu": "H"}
    numbers = [number("memory_static", 8), dropped(0.25), steady(), number("region_time", 7, region="gate")]
    before, after = side(*numbers), side(*numbers, machine=machine)
    found = findings([(before, after)], RULES)
    assert [one.verdict for one in found] == ["same", "same", "not comparable", "not comparable"]
    assert {one.why for one in found[2:]} == {"different machines: cpu Example 9000, Example 1; gpu none, H"}
    allowed = findings([(before, after)], Rules({}, allow_machine_mismatch=True))
    assert [one.verdict for one in allowed] == ["same", "same", "same", "inconclusive"]


# Single numbers that cannot be compared


@pytest.mark.parametrize("other", [{"unit": "KiB"}, {"kind": "modelled"}])
def test_a_number_whose_unit_or_kind_changed_is_not_compared(other: dict[str, Any]) -> None:
    found = of(number("memory_static", 8), number("memory_static", 8, **other))
    assert (found.verdict, found.gated) == ("not comparable", False)
    told = other.get("unit", "bytes"), other.get("kind", "exact")
    assert found.why == f"unit or kind changed: bytes (exact), {told[0]} ({told[1]})"


def test_a_metric_that_this_moeprof_does_not_know_is_not_compared() -> None:
    found = of(number("quantum_leaps", 8), number("quantum_leaps", 9))
    assert (found.verdict, found.why) == ("not comparable", "unknown metric in this version of moeprof")


def test_what_one_side_has_alone_is_new_or_removed() -> None:
    shared, ours, theirs = number("memory_static", 8), number("capacity", 3), number("steps", 4)
    found = findings([(side(ours, shared), side(shared, theirs))], RULES)
    assert [(one.metric, one.verdict, one.baseline, one.candidate) for one in found] == [
        ("memory_static", "same", 8, 8),
        ("steps", "new", None, 4),
        ("capacity", "removed", 3, None),
    ]
    assert [one.gated for one in found] == [True, False, False]


def test_only_the_metrics_that_are_asked_for_are_looked_at() -> None:
    before, after = (
        side(number("memory_static", 8), number("capacity", 3), steady()),
        side(number("memory_static", 9), steady()),
    )
    found = findings([(before, after)], Rules({}, only=["memory_static", "capacity"]))
    assert [(one.metric, one.verdict) for one in found] == [("memory_static", "worse"), ("capacity", "removed")]


def test_a_finding_says_where() -> None:
    one = number("region_time", 7, phase="score", domain="<script>", variant="static", layer="3", region="gate")
    found = of(one, one)
    assert found.where == "score, <script>, static, layer 3, region gate"
    assert (found.recipe, found.address.workload, found.unit) == ("lm-tiny", "lm", "ns")
