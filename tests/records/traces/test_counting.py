"""Choices are counted by domain, layer and expert, as a loop over the rows counts them."""

from collections import Counter

import pyarrow.compute as pc
import pytest
from hypothesis import assume, given

from moeprof.records.traces.counting import counted
from moeprof.records.traces.routing_trace import RoutingTrace
from tests.analysis.traces import Row, drawn_rows, trace_of


def counts_by_rows(traces: list[RoutingTrace]) -> Counter[tuple[str, int, int]]:
    """Choices by domain, layer and expert, row by row."""
    rows = [row for trace in traces for row in trace.table.to_pylist()]
    return Counter((row["domain"], int(row["layer"]), row["expert"]) for row in rows if not row["dropped"])


@given(rows=drawn_rows())
def test_counts_are_those_of_a_loop_over_the_rows(rows: list[Row]) -> None:
    assume(rows)
    traces = [trace_of(rows, num_experts=5, layers=("3", "1")), trace_of(rows, num_experts=5, layers=("1", "3"))]
    expected = counts_by_rows(traces)
    assume(expected)
    found = counted(traces)
    assert found.layers == [1, 3]
    cells = {
        (domain, layer, expert): int(count)
        for domain in found.counts
        for layer, row in zip(found.layers, found.totals(domain), strict=True)
        for expert, count in enumerate(row)
    }
    assert +Counter(cells) == expected


@given(rows=drawn_rows())
def test_steps_follow_each_other_phase_by_phase_and_ranks_take_them_together(rows: list[Row]) -> None:
    assume(rows)
    decode = trace_of(rows, num_experts=5, layers=("1", "3"))
    prefill = RoutingTrace(decode.header.model_copy(update={"phase": "prefill"}), decode.table)
    assume(counts_by_rows([decode]))
    found = counted([prefill, decode, decode], by_step=True)
    steps = sorted(set(decode.column("step").tolist()))
    assert found.num_steps == 2 * len(steps)
    for place, step in enumerate(steps):
        expected = counts_by_rows([RoutingTrace(decode.header, decode.table.filter(pc.equal(decode.table["step"], step)))])
        for ranks, at in ((1, place), (2, len(steps) + place)):
            cells = {
                (domain, layer, expert): int(counts_SLE[at, row, expert])
                for domain, counts_SLE in found.counts.items()
                for row, layer in enumerate(found.layers)
                for expert in range(5)
            }
            assert +Counter(cells) == Counter({cell: ranks * count for cell, count in expected.items()})


def test_without_a_choice_that_was_kept_there_are_no_counts() -> None:
    with pytest.raises(ValueError, match="no choices in it"):
        counted([trace_of([])])
    with pytest.raises(ValueError, match="no choices in it"):
        counted([trace_of([Row(0, 1, dropped=True)])])


def test_traces_of_different_models_are_not_added() -> None:
    with pytest.raises(ValueError, match="different models"):
        counted([trace_of([Row(0, 1)], num_experts=4), trace_of([Row(0, 1)], num_experts=5)])


def test_layers_of_two_stacks_have_no_absolute_number() -> None:
    with pytest.raises(ValueError, match=r"layer dec\.1 has no absolute number"):
        counted([trace_of([Row(0, 1, layer="dec.1")], layers=("dec.1",))])
