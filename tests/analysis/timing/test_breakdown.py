"""From the time of every region to shares, rows, and the run's own overhead."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.timing.breakdown import (
    Breakdown,
    averaged,
    breakdown_rows,
    overhead_rows,
    region_rows,
    shares,
    summed,
)
from moeprof.records.regions import REGIONS
from moeprof.records.run.raw_tables import BREAKDOWN, OBSERVED, ROUNDS
from moeprof.records.run.raw_tables import REGIONS as REGION_TIMES
from tests.records.run.runs import raw_run

Row = dict[str, Any]

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
    rows = breakdown_rows("lm", "score", [make("prose", (1, 2, 3, 4, 5), (1, 2, 3, 6, 5))])
    samples = {row.region: raw for row, raw in rows if raw and row.domain}
    assert samples == {"attention": [1, 1], "gate": [2, 2], "experts": [7, 9], "other": [5, 5]}


def test_domains_are_added_up_round_by_round() -> None:
    parts = [make("prose", (1, 2, 3, 4, 5), (1, 1, 1, 1, 1)), make("code", (10, 20, 30, 40, 50), (5, 5, 5, 5, 5), steps=3)]
    (total,) = summed(parts)
    assert (total.domain, total.steps) == ("", 4)
    assert [list(times.values()) for times in total.rounds] == [[11, 22, 33, 44, 55], [6, 6, 6, 6, 6]]
    assert {domain for _, domain, _, _ in values(parts)} == {"prose", "code", ""}


def test_a_single_domain_has_rows_over_all_domains_too() -> None:
    found = values([make("prose", (1, 2, 3, 4, 5))])
    assert {domain for _, domain, _, _ in found} == {"prose", ""}
    for (metric, domain, region, layer), value in found.items():
        assert found[metric, "", region, layer] == value, domain


@given(st.lists(st.tuples(*[st.integers(0, 10**9)] * 5), min_size=1, max_size=6))
def test_shares_of_a_step_add_up_to_one(rounds: list[tuple[int, ...]]) -> None:
    found = shares(make("", *rounds).medians_ns())
    assert found == {} or sum(found.values()) == pytest.approx(1)


def test_regions_come_in_the_order_of_the_registry() -> None:
    rows = [row for row, _ in breakdown_rows("lm", "score", [make("prose", (1, 2, 3, 4, 5))])]
    regions = [row.region for row in rows if row.metric == "region_share" and row.domain]
    assert regions == [name for name in REGIONS if name in {"attention", "gate", "experts", "other"}]


def timed_rounds(pass_name: str, *times_ns: int, domain: str = "prose", rank: int = 0, steps: int = 1) -> list[Row]:
    cells = {"pass": pass_name, "phase": "score", "variant": "static", "domain": domain, "rank": rank, "steps": steps}
    return [cells | {"round": index, "time_ns": time_ns} for index, time_ns in enumerate(times_ns)]


def region_times(breakdown: Breakdown, rank: int = 0) -> list[Row]:
    cells = {"phase": "score", "variant": breakdown.variant, "domain": breakdown.domain, "rank": rank}
    return [
        cells | {"round": index, "region": region, "layer": layer, "time_ns": time_ns}
        for index, times in enumerate(breakdown.rounds)
        for (region, layer), time_ns in times.items()
    ]


def test_the_overhead_is_a_ratio_of_medians_beside_the_ratios_of_pairs(tmp_path: Path) -> None:
    rounds = [*timed_rounds(BREAKDOWN, 100, 100, 100), *timed_rounds(OBSERVED, 103, 102, 206)]
    ((row, pairs),) = overhead_rows(raw_run(tmp_path / "run", {ROUNDS: rounds}), "score")
    assert (row.metric, row.category, row.value) == ("overhead", "breakdown", 1.03)
    assert (row.workload, row.phase, row.variant, row.domain) == ("lm", "score", "static", "")
    assert pairs == [1.03, 1.02, 2.06]


def test_the_overhead_is_of_all_domains_together_on_the_slowest_rank_of_each_round(tmp_path: Path) -> None:
    """Unobserved 100 + 50 and 100 + 50; observed 110 + 70 and 130 + 35, of which rank 1 has the 110 and rank 0 the rest."""
    rounds = [
        *timed_rounds(BREAKDOWN, 100, 90),
        *timed_rounds(BREAKDOWN, 50, 50, domain="code"),
        *timed_rounds(BREAKDOWN, 80, 100, rank=1),
        *timed_rounds(BREAKDOWN, 10, 10, domain="code", rank=1),
        *timed_rounds(OBSERVED, 105, 130),
        *timed_rounds(OBSERVED, 70, 35, domain="code"),
        *timed_rounds(OBSERVED, 110, 120, rank=1),
        *timed_rounds(OBSERVED, 60, 30, domain="code", rank=1),
    ]
    ((row, pairs),) = overhead_rows(raw_run(tmp_path / "run", {ROUNDS: rounds}), "score")
    assert pairs == [180 / 150, 165 / 150]
    assert row.value == 172.5 / 150


def test_the_rows_of_a_run_are_means_over_ranks_and_then_those_of_each_rank(tmp_path: Path) -> None:
    one, other = make("prose", (10, 2, 20, 40, 8), (1, 1, 1, 1, 1)), make("prose", (20, 4, 10, 50, 6), (3, 5, 7, 9, 1))
    rounds = [*timed_rounds(OBSERVED, 80, 5, steps=2), *timed_rounds(OBSERVED, 90, 25, rank=1, steps=2)]
    tables = {ROUNDS: [*rounds, *timed_rounds(BREAKDOWN, 1, 1)], REGION_TIMES: [*region_times(one), *region_times(other, 1)]}
    found = {row.address: row.value for row, _ in region_rows(raw_run(tmp_path / "run", tables))}

    def time_of(region: str, layer: str, rank: str) -> float:
        (value,) = (
            value
            for at, value in found.items()
            if (at.metric, at.domain, at.region, at.layer, at.rank) == ("region_time", "prose", region, layer, rank)
        )
        return value

    assert [time_of("attention", "0", rank) for rank in ("", "0", "1")] == [(7.5 + 1) / 2, (5 + 0.5) / 2, (10 + 1.5) / 2]
    assert [time_of("experts", "", rank) for rank in ("", "0", "1")] == [(30 + 4.5) / 2, (30 + 1) / 2, (30 + 8) / 2]


def test_over_ranks_every_region_is_the_mean_of_its_round_and_regions_still_add_up() -> None:
    one, other = make("prose", (10, 2, 20, 40, 8), (1, 1, 1, 1, 1)), make("prose", (20, 4, 10, 50, 6), (3, 5, 7, 9, 1))
    mean = averaged([one, other])
    assert mean == make("prose", (15, 3, 15, 45, 7), (2, 3, 4, 5, 1))
    assert averaged([one]) == one
