"""What is said of throughputs: worse, better, same, or how many rounds would tell; and of other times, which nobody gates."""

import math
from statistics import median
from typing import Any

import numpy as np
import pytest

from moeprof.analysis.comparison.measurement import Number
from moeprof.analysis.comparison.significance import rounds_p
from moeprof.analysis.comparison.verdicts import Finding, Rules, findings
from tests.analysis.comparison.sides import STEADY, number, side, throughput

RULES = Rules({})


def of(ours: Number, theirs: Number, rules: Rules = RULES) -> Finding:
    (found,) = findings([(side(ours), side(theirs))], rules)
    return found


def steady(speed: float = 1, **keys: Any) -> Number:
    """Ten rounds around 1,000 tokens a second, or around `speed` times as many."""
    return throughput(*(1000 * speed * one for one in STEADY), **keys)


def noisy(rounds: int, speed: float = 1, noise: float = 0.05, seed: int = 0) -> Number:
    """Quantiles of normal rounds, a process each, in the order of a seed, so that the median is exactly what was asked for."""
    ranks = (np.arange(rounds) + 0.5) / rounds
    values = [speed * (1000 + 1000 * noise * math.sqrt(2) * erfinv(2 * rank - 1)) for rank in ranks]
    return throughput(*np.random.default_rng(seed).permutation(values).tolist(), processes=rounds)


def erfinv(value: float) -> float:
    """By bisection."""
    low, high = -4.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < value else (low, middle)
    return low


def test_a_lower_throughput_is_worse_with_its_change_interval_and_probability() -> None:
    found = of(steady(), steady(0.9))
    assert (found.verdict, found.gated, found.why) == ("worse", True, "")
    assert found.change == pytest.approx(-0.1, abs=0.002)
    assert found.interval is not None
    assert found.interval[0] < -0.1 < found.interval[1] < -0.08
    assert found.p == pytest.approx(2 / math.comb(20, 10), rel=1e-6)


def test_a_higher_throughput_is_better() -> None:
    found = of(steady(), steady(1.1))
    assert (found.verdict, found.gated) == ("better", True)
    assert found.change == pytest.approx(0.1, abs=0.002)


def test_an_equal_throughput_with_little_noise_is_the_same() -> None:
    found = of(steady(), steady(1.001))
    assert (found.verdict, found.gated, found.why) == ("same", True, "")
    assert found.interval is not None
    assert -0.05 < found.interval[0] < 0 < found.interval[1] < 0.05


def test_a_certain_change_within_the_threshold_is_the_same() -> None:
    found = of(steady(), steady(0.965))
    assert found.p is not None
    assert found.p < 0.001
    assert found.verdict == "same"


def test_the_threshold_can_be_set_for_the_metric() -> None:
    assert of(steady(), steady(0.965), Rules({"throughput": 0.02})).verdict == "worse"
    assert of(steady(), steady(0.9), Rules({"throughput": 0.2})).verdict == "same"
    assert of(steady(), steady(0.9), Rules({"step_latency": 0.2})).verdict == "worse"


def test_one_process_a_side_decides_nothing_however_many_rounds_it_has() -> None:
    for processes, shown in ((1, "1 process"), (2, "2 processes")):
        found = of(steady(processes=5), steady(0.5, processes=processes))
        assert (found.verdict, found.gated) == ("inconclusive", True)
        assert found.why == f"{shown} per side; at least 3 are needed to judge speed"
        assert found.change == pytest.approx(-0.5, abs=0.01)
        assert found.interval is not None


def test_processes_that_differ_as_much_as_the_sides_decide_nothing_though_every_round_of_them_agrees() -> None:
    """Rounds within 0.2% of each other in processes of 900 and 1,000: each side has one that is like the other side's."""
    fast, slow = ([speed + place for place in range(10)] for speed in (1000.0, 900.0))
    ours = number("throughput", 1000, samples=[fast, fast, fast, slow])
    theirs = number("throughput", 900, samples=[slow, slow, slow, fast])
    found = of(ours, theirs)
    assert found.p is not None
    assert (found.verdict, found.p > 0.2) == ("inconclusive", True)
    assert rounds_p(3 * fast + slow, 3 * slow + fast) < 0.001
    assert found.spread == pytest.approx((0.0524, 0.0524), abs=0.0002)  # half of ln(1004.5 / 904.5)


def test_too_few_rounds_are_inconclusive_and_the_rounds_it_would_need_are_named() -> None:
    """5 rounds a side are decided when none overlap, of a family of one: 2 / 252 < 0.01."""
    ours, theirs = (number("throughput", 1000, samples=[[999.9], [1000.1], [1000 + place / 50]]) for place in (1, 2))
    found = of(ours, theirs)
    assert (found.verdict, found.gated) == ("inconclusive", True)
    assert found.why == "about 5 rounds per side would decide (5 processes of 1 round)"
    assert found.p == pytest.approx(rounds_p([999.9, 1000.1, 1000.02], [999.9, 1000.1, 1000.04]))
    assert found.interval is not None


def test_noise_of_10_percent_is_inconclusive_at_10_processes() -> None:
    """2 (2.5758 + 1.2816)^2 x (0.1 / ln 1.05)^2 = 125 processes for a normal spread of 10%; ten quantiles spread a little less."""
    found = of(noisy(10, noise=0.1), noisy(10, noise=0.1, seed=1))
    needed = int(found.why.split()[1])
    assert (found.verdict, found.why) == (
        "inconclusive",
        f"about {needed} rounds per side would decide ({needed} processes of 1 round)",
    )
    assert 90 <= needed <= 126


def test_rounds_that_are_there_already_are_not_asked_for() -> None:
    """The change is certain and as large as the threshold: more rounds would not soon tell on which side of it it lies."""
    found = of(noisy(60), noisy(60, speed=0.955))
    assert found.p is not None
    assert found.p < 0.001
    assert (found.verdict, found.why) == ("inconclusive", "the change is too close to the threshold of 5%")


def test_a_threshold_of_zero_is_possible() -> None:
    exact = Rules({"throughput": 0})
    assert of(steady(), steady(0.98), exact).verdict == "worse"
    assert of(steady(), steady(0.999), exact).why.startswith("about ")
    found = of(steady(), steady(), exact)
    assert (found.verdict, found.why) == (
        "inconclusive",
        "no measurable difference, and a threshold of 0 is never met",
    )


def test_a_side_without_raw_samples_cannot_be_compared() -> None:
    for ours, theirs in ((throughput(), steady()), (steady(), throughput()), (throughput(), throughput())):
        found = of(ours, theirs)
        assert (found.verdict, found.gated, found.why) == ("not comparable", False, "one side has no raw samples")


def test_in_turns_what_slows_both_sides_of_a_pair_down_cancels_out() -> None:
    """Pairs of processes at 1, 2 and 4 times the speed, the candidate always a tenth slower: certain in pairs, lost apart."""
    ours, theirs = (
        number("throughput", 1000, samples=[[1000 * pace * speed * one for one in STEADY] for pace in (1, 2, 4)])
        for speed in (1, 0.9)
    )
    sides = [(side(ours, turns=name), side(theirs, turns=name)) for name in ("", "t")]
    (apart, together) = (findings([pair], RULES)[0] for pair in sides)
    assert (apart.verdict, apart.change) == ("inconclusive", pytest.approx(-0.1))
    assert together.change == pytest.approx(-0.1)
    assert together.interval == pytest.approx((-0.1, -0.1))
    assert together.p == pytest.approx(rounds_p(*([v for rounds in one.samples for v in rounds] for one in (ours, theirs))))


def test_in_turns_sides_of_unequal_rounds_are_compared_as_if_apart() -> None:
    ours, theirs = steady(processes=5), throughput(*(900 * one for one in STEADY[:-1]), processes=5)
    (found,) = findings([(side(ours, turns="t"), side(theirs, turns="t"))], RULES)
    assert found.verdict == "worse"


# The family


def test_the_family_is_throughput_by_workload_phase_and_variant_and_corrected_together() -> None:
    places: list[dict[str, Any]] = [
        {"phase": phase, "variant": variant} for phase in ("score", "decode") for variant in ("static", "dynamic")
    ]
    before = side(*(steady(**place) for place in places))
    after = side(steady(0.9, **places[0]), *(steady(1.001, **place) for place in places[1:]))
    found = findings([(before, after)], RULES)
    alone = rounds_p([1000 * one for one in STEADY], [900 * one for one in STEADY])
    assert [one.verdict for one in found] == ["worse", "same", "same", "same"]
    assert found[0].p == pytest.approx(4 * alone)


def test_a_change_that_is_certain_alone_may_be_none_in_a_large_family() -> None:
    """Six rounds without overlap: 2 / 924 alone, 20 times that among twenty."""
    rounds = [1000.0, 1001, 1002, 1003, 1004, 1005]
    for size, verdict in ((1, "worse"), (20, "inconclusive")):
        places: list[dict[str, Any]] = [{"variant": f"variant{index}"} for index in range(size)]
        before = side(*(throughput(*rounds, **place) for place in places))
        after = side(
            throughput(*(0.9 * one for one in rounds), **places[0]), *(throughput(*rounds, **place) for place in places[1:])
        )
        found = findings([(before, after)], RULES)[0]
        assert found.verdict == verdict
        assert found.p == pytest.approx(size * 2 / 924)


@pytest.mark.parametrize("key", [{"domain": "prose"}, {"point": "batch=8"}, {"layer": "3"}, {"rank": "0"}, {"region": "gate"}])
def test_the_throughput_of_a_part_is_described_and_does_not_weaken_the_family(key: dict[str, Any]) -> None:
    parts = findings([(side(steady(), steady(**key)), side(steady(0.9), steady(0.5, **key)))], RULES)
    assert [(one.verdict, one.gated) for one in parts] == [("worse", True), ("inconclusive", False)]
    assert parts[1].why == "timed, not gated"
    assert parts[0].p == of(steady(), steady(0.9)).p


@pytest.mark.parametrize("metric", ["region_time", "step_latency", "max_throughput", "overhead", "max_batch"])
def test_other_times_are_described_however_much_they_change(metric: str) -> None:
    found = of(number(metric, 100), number(metric, 500))
    assert (found.verdict, found.gated, found.why, found.change) == ("inconclusive", False, "timed, not gated", 4)
    assert (found.p, found.interval) == (None, None)


def test_with_only_another_metric_throughput_is_not_in_the_family() -> None:
    before, after = side(steady(), number("region_time", 5)), side(steady(0.9), number("region_time", 6))
    assert [one.metric for one in findings([(before, after)], Rules({}, only=["region_time"]))] == ["region_time"]


def test_the_example_of_quantiles_has_the_median_it_was_asked_for() -> None:
    assert median(rounds[0] for rounds in noisy(60, speed=0.955).samples) == pytest.approx(955, rel=1e-9)
