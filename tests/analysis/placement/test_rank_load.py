"""Load per rank: per layer and step first, and only then over them."""

from itertools import groupby
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.imbalance import imbalance_rows
from moeprof.analysis.placement.rank_load import rank_load_rows
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import RoutingTrace
from tests.analysis.traces import Row, drawn_rows, steps_of, trace_of, value_at


def two_ranks(first: list[Row], second: list[Row], **header: object) -> list[RoutingTrace]:
    """What each of two ranks routed; rank 0 holds experts 0 and 1, rank 1 the others."""
    return [trace_of(rows, **header) for rows in (first, second)]  # type: ignore[arg-type]


def test_a_rank_s_tokens_come_from_all_ranks() -> None:
    rows = rank_load_rows(two_ranks(steps_of([0, 1, 2]), steps_of([0, 0, 3])))
    assert [value_at(rows, "rank_tokens", rank=rank, layer="1") for rank in "01"] == [4, 2]
    assert value_at(rows, "rank_load_max_over_mean", layer="1", rank="") == pytest.approx(4 / 3)
    assert value_at(rows, "avg_max_load", layer="1", rank="") == pytest.approx(4 / 6)


def test_opposite_layers_do_not_cancel_out() -> None:
    """Layer 1 sends everything to rank 0 and layer 3 everything to rank 1: over layers it looks even, and is not."""
    first = [*steps_of([0, 1], layer="1"), *steps_of([2, 3], layer="3")]
    rows = rank_load_rows(two_ranks(first, first, layers=("1", "3")))
    assert [value_at(rows, "rank_tokens", rank=rank) for rank in "01"] == [2, 2]
    assert value_at(rows, "rank_load_max_over_mean", rank="") == 2
    assert value_at(rows, "max_load", rank="") == value_at(rows, "avg_max_load", rank="") == 1


def test_opposite_steps_do_not_cancel_out_either() -> None:
    rows = rank_load_rows(two_ranks(steps_of([0, 1], [2, 3]), steps_of([0, 1], [2, 3])))
    assert [value_at(rows, "rank_tokens", rank=rank, layer="1") for rank in "01"] == [2, 2]
    assert value_at(rows, "rank_load_max_over_mean", layer="1", rank="") == 2


def test_opposite_ranks_do() -> None:
    """Rank 0 sends all to itself and rank 1 all to itself: together that is even."""
    rows = rank_load_rows(two_ranks(steps_of([0, 1]), steps_of([2, 3])))
    assert value_at(rows, "rank_load_max_over_mean", rank="") == 1


def test_dropped_choices_reach_nobody() -> None:
    kept, lost = Row(0, 0), Row(0, 2, sequence=1, dropped=True)
    rows = rank_load_rows(two_ranks([kept, lost], [kept, lost]))
    assert [value_at(rows, "rank_tokens", rank=rank) for rank in "01"] == [2, 0]
    assert value_at(rows, "max_load", rank="") == 1


def test_the_largest_load_is_that_of_the_worst_step_and_over_layers_their_mean() -> None:
    first = [*steps_of([0, 2], [0, 0], layer="1"), *steps_of([0, 2], [0, 2], layer="3")]
    rows = rank_load_rows(two_ranks(first, [], layers=("1", "3")))
    assert [value_at(rows, "max_load", layer=layer, rank="") for layer in "13"] == [1, 0.5]
    assert value_at(rows, "max_load", rank="") == fmean([1, 0.5])
    assert value_at(rows, "avg_max_load", rank="") == fmean([fmean([0.5, 1]), 0.5])


def test_a_rank_with_nothing_but_padding_still_holds_experts() -> None:
    rows = rank_load_rows(two_ranks(steps_of([2, 3, 3]), []))
    assert [value_at(rows, "rank_tokens", rank=rank) for rank in "01"] == [0, 3]


@settings(max_examples=40, deadline=None)
@given(st.lists(drawn_rows(num_experts=6), min_size=1, max_size=3))
def test_every_number_is_what_plain_loops_find(routed: list[list[Row]]) -> None:
    num_ranks = len(routed)
    top_k = max((row.slot for rows in routed for row in rows), default=0) + 1
    padded = [trace_of(rows, num_experts=6, layers=("1", "3")) for rows in routed]
    traces = [RoutingTrace(one.header.model_copy(update={"top_k": top_k}), one.table) for one in padded]
    found = rank_load_rows(traces)
    everything = sorted((row for rows in routed for row in rows), key=lambda row: (row.layer, row.step))
    ratios, shares = [], []
    for layer, of_layer in groupby(everything, key=lambda row: row.layer):
        loads_BN = []
        for _, step in groupby(of_layer, key=lambda row: row.step):
            kept = [row for row in step if not row.dropped]
            loads_BN.append([sum(row.expert // (6 // num_ranks) == rank for row in kept) for rank in range(num_ranks)])
        for rank in range(num_ranks):
            assert value_at(found, "rank_tokens", layer=layer, rank=str(rank)) == fmean(loads[rank] for loads in loads_BN)
        reached = [loads for loads in loads_BN if any(loads)]
        if reached:
            ratios.append(fmean(max(loads) / fmean(loads) for loads in reached))
            shares.append(max(max(loads) / sum(loads) for loads in reached))
            assert value_at(found, "rank_load_max_over_mean", layer=layer, rank="") == pytest.approx(ratios[-1])
    if ratios:
        assert value_at(found, "rank_load_max_over_mean", rank="") == pytest.approx(fmean(ratios))
        assert value_at(found, "max_load", rank="") == pytest.approx(fmean(shares))
        assert 1 / num_ranks <= value_at(found, "avg_max_load", rank="") <= value_at(found, "max_load", rank="") + 1e-12


# Any other metric by rank


def by_rank(*values: float, layer: str = "", **address: str) -> list[MetricRow]:
    return [
        MetricRow("comm_wait_time", value, "lm", "score", rank=str(rank), layer=layer, **address)  # type: ignore[arg-type]
        for rank, value in enumerate(values)
    ]


def test_waiting_is_compared_within_each_layer_before_layers_are_averaged() -> None:
    rows = [*by_rank(30, 0, layer="1"), *by_rank(0, 10, layer="3"), *by_rank(5, 5, layer="5")]
    found = {row.layer: row.value for row in imbalance_rows("rank_wait_max_over_mean", rows)}
    assert found == {"1": 2, "3": 2, "5": 1, "": pytest.approx(5 / 3)}


def test_variants_and_phases_are_kept_apart() -> None:
    rows = [*by_rank(30, 10, layer="1", variant="static"), *by_rank(7, 7, layer="1", variant="dynamic")]
    found = {(row.variant, row.layer): row.value for row in imbalance_rows("rank_wait_max_over_mean", rows)}
    assert found == {("static", "1"): 1.5, ("static", ""): 1.5, ("dynamic", "1"): 1, ("dynamic", ""): 1}


def test_memory_has_no_layers_and_rows_over_all_ranks_do_not_count() -> None:
    rows = [MetricRow("memory_total_peak", value, "lm", "score", rank=rank) for rank, value in (("", 9), ("0", 3), ("1", 9))]
    (found,) = imbalance_rows("rank_memory_max_over_mean", rows)
    assert (found.value, found.metric, found.rank, found.layer) == (1.5, "rank_memory_max_over_mean", "", "")


def test_nobody_has_anything_and_nothing_is_told() -> None:
    assert list(imbalance_rows("rank_wait_max_over_mean", by_rank(0, 0, layer="1"))) == []
