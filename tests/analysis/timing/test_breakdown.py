"""From the time of every region to shares, rows, and the run's own overhead."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.timing.breakdown import Breakdown, averaged, breakdown_rows, overhead_rows, shares, summed
from moeprof.records.regions import REGIONS
from tests.analysis.timing.rounds import run_of_rounds

KEYS = [("attention", "0"), ("gate", "1"), ("experts", "1"), ("experts", "3"), ("other", "")]


def make(domain: str, *rounds: tuple[int, ...], steps: int = 1) -> Breakdown:
    return Breakdown("static", domain, [dict(zip(KEYS, times, strict=True)) for times in rounds], steps)


def values(breakdowns: list[Breakdown]) -> dict[tuple[str, str, str, str], float]:
    rows = [row for row, _ in breakdown_rows("lm", "score", breakdowns)]
    return {(row.metric, row.domain, row.region, row.layer): row.value for row in rows}


def test_times_are_medians_per_step_of_every_layer_and_of_all_of_them() -> None:
    found = values([make("prose", (10, 2, 20, 40, 8), (10, 4, 24, 48, 8), (90, 4, 22, 10, 8), steps=2)])
    assert found["region_time", "prose", "attention", "0"] == 5
    assert found["region_time", "prose", "experts", "1"] == 11
    assert found["region_time", "prose", "experts", "3"] == 20
    assert found["region_time", "prose", "experts", ""] == 30  # of 60, 72 and 32
    assert found["region_time", "prose", "other", ""] == 4
    assert ("region_time", "prose", "other", "") in found
    assert found["region_share", "prose", "experts", ""] == 30 / (5 + 2 + 30 + 4)


def test_the_raw_values_behind_a_region_are_those_of_its_rounds() -> None:
    samples = {
        row.region: raw for row, raw in breakdown_rows("lm", "score", [make("prose", (1, 2, 3, 4, 5), (1, 2, 3, 6, 5))]) if raw
    }
    assert samples == {"attention": [1, 1], "gate": [2, 2], "experts": [7, 9], "other": [5, 5]}


def test_domains_are_added_up_round_by_round() -> None:
    parts = [make("prose", (1, 2, 3, 4, 5), (1, 1, 1, 1, 1)), make("code", (10, 20, 30, 40, 50), (5, 5, 5, 5, 5), steps=3)]
    (total,) = summed(parts)
    assert (total.domain, total.steps) == ("", 4)
    assert [list(times.values()) for times in total.rounds] == [[11, 22, 33, 44, 55], [6, 6, 6, 6, 6]]
    assert {domain for _, domain, _, _ in values(parts)} == {"prose", "code", ""}


def test_a_single_domain_has_the_same_numbers_as_the_whole() -> None:
    found = values([make("prose", (1, 2, 3, 4, 5))])
    assert {domain for _, domain, _, _ in found} == {"prose", ""}
    assert all(found[metric, "", *rest] == value for (metric, _, *rest), value in found.items())


@given(st.lists(st.tuples(*[st.integers(0, 10**9)] * 5), min_size=1, max_size=6))
def test_shares_of_a_step_add_up_to_one(rounds: list[tuple[int, ...]]) -> None:
    found = shares(make("", *rounds).medians_ns())
    assert found == {} or sum(found.values()) == pytest.approx(1)


def test_regions_come_in_the_order_of_the_registry() -> None:
    regions = [
        row.region
        for row, _ in breakdown_rows("lm", "score", [make("prose", (1, 2, 3, 4, 5))])
        if row.metric == "region_share" and not row.domain
    ]
    assert regions == [name for name in REGIONS if name in {"attention", "gate", "experts", "other"}]


def test_the_overhead_is_a_ratio_of_medians_over_all_domains_beside_the_ratios_of_pairs(tmp_path: Path) -> None:
    observed, unobserved = {"prose": [100, 100, 200], "code": [3, 2, 6]}, {"prose": [90, 90, 90], "code": [10, 10, 10]}
    run = run_of_rounds(tmp_path, {("breakdown observed", "static"): [observed], ("breakdown", "static"): [unobserved]})
    ((row, pairs),) = overhead_rows(run, "score")
    assert (row.metric, row.variant, row.category, row.value) == ("overhead", "static", "breakdown", 1.03)
    assert pairs == [1.03, 1.02, 2.06]


def test_over_ranks_every_region_is_the_mean_of_its_round_and_regions_still_add_up() -> None:
    one, other = make("prose", (10, 2, 20, 40, 8), (1, 1, 1, 1, 1)), make("prose", (20, 4, 10, 50, 6), (3, 5, 7, 9, 1))
    mean = averaged([one, other])
    assert mean == make("prose", (15, 3, 15, 45, 7), (2, 3, 4, 5, 1))
    assert averaged([one]) == one
