"""Tokens in their order: domains, steps, ranks, sequences, positions; and the choices of each, first choice first."""

import random

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.routing.token_choices import combined, phase_tokens
from moeprof.records.traces.routing_trace import RoutingTrace
from tests.analysis.traces import Row, drawn_rows, trace_of


def unique_tokens(rows: list[Row]) -> list[Row]:
    """The rows without tokens that occur twice at one place of a layer."""
    kept: dict[tuple[object, ...], Row] = {}
    for row in rows:
        kept.setdefault((row.layer, row.step, row.sequence, row.position, row.slot), row._replace(domain="prose"))
    top_k = max((row.slot for row in rows), default=0) + 1
    places = {key[:4]: [kept[*key[:4], slot] for slot in range(top_k)] for key in kept}
    return [row for own in places.values() if len({row.expert for row in own}) == top_k for row in own]


@settings(deadline=None)
@given(drawn_rows(), st.randoms(use_true_random=False))
def test_tokens_come_in_order_whatever_the_order_of_the_rows(rows: list[Row], randomness: random.Random) -> None:
    rows = unique_tokens(rows)
    if rows:
        shuffled = randomness.sample(rows, len(rows))
        found = phase_tokens([trace_of(shuffled, num_experts=5, layers=("1", "3"))])
        tokens = sorted({(row.step, row.sequence, row.position) for row in rows})
        assert found.num_tokens == len(tokens)
        for layer in found.layers:
            own = sorted((row for row in rows if row.layer == layer.layer), key=lambda row: (row[0], row[5], row[6], row.slot))
            assert layer.expert_TK.ravel().tolist() == [row.expert for row in own]
            places = [tokens.index((row.step, row.sequence, row.position)) for row in own if row.slot == 0]
            assert layer.token_T.tolist() == places


def test_domains_follow_each_other_and_ranks_are_in_step() -> None:
    first = [Row(step, step, domain=domain) for step, domain in ((0, "a"), (1, "b"), (2, "a"))]
    found = phase_tokens([trace_of(first), trace_of([row._replace(expert=3) for row in first])])
    assert (found.domains, found.bounds_D.tolist()) == (["a", "b"], [0, 4, 6])
    assert found.layers[0].expert_TK.ravel().tolist() == [0, 3, 2, 3, 1, 3]
    assert found.sequences == [("a", 0, 0), ("a", 1, 0), ("b", 0, 0), ("b", 1, 0)]
    assert found.sequence_T.tolist() == [0, 1, 0, 1, 2, 3]


def test_the_first_use_of_an_expert_is_that_of_the_earliest_choice() -> None:
    rows = [Row(0, 2, 0), Row(0, 1, 1), Row(1, 1, 0), Row(1, 0, 1)]
    (layer,) = phase_tokens([trace_of(rows)]).layers
    assert layer.first_uses(4).tolist() == [3, 1, 0, 4]
    assert layer.first_uses(4, np.array([False, True])).tolist() == [1, 0, 2, 2]
    assert layer.counts(4, np.array([True, False])).tolist() == [0, 1, 1, 0]


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 2**31 - 1)] * 4), min_size=1, max_size=20))
def test_numbers_of_tuples_are_equal_and_ordered_as_the_tuples(tuples: list[tuple[int, int, int, int]]) -> None:
    key = combined(list(np.array(tuples).T)).tolist()
    order = [sorted(set(tuples)).index(one) for one in tuples]
    assert [sorted(set(key)).index(one) for one in key] == order


def test_a_trace_with_a_domain_that_has_no_rows_is_read() -> None:
    trace = trace_of([Row(0, 1, domain="a"), Row(1, 2, domain="b")])
    without = RoutingTrace(trace.header, trace.table.filter(pa.array([False, True])))
    found = phase_tokens([without])
    assert found.num_tokens == 1
    assert found.layers[0].expert_TK.tolist() == [[2]]
