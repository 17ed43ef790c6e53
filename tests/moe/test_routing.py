"""Queues before experts, drops and weights agree with fairseq's Top2Gate in plain loops, whatever the routing."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moeprof.moe.routing import Routing, positions_in_expert
from moeprof.records.recipe.gating import capacity

from .drawn import Drawn, drawn, fractions, unhurried
from .plain import gated


def dropped_by(case: Drawn, slots: int) -> torch.Tensor:
    """As static gating finds them, (T, K)."""
    return (positions_in_expert(case.routing) >= slots) & case.routing.kept()


@unhurried
@given(drawn())
def test_places_in_the_queue_are_those_of_the_plain_loop(case: Drawn) -> None:
    places = positions_in_expert(case.routing).tolist()
    for token, choice in product(range(case.num_tokens), range(case.top_k)):
        if case.real[token]:
            assert places[token][choice] == case.dropless.places[token][choice]


@unhurried
@given(drawn())
def test_every_queue_counts_from_zero_without_a_gap(case: Drawn) -> None:
    places = positions_in_expert(case.routing).tolist()
    queues: dict[int, list[int]] = {}
    for token in range(case.num_tokens):
        for choice, expert in enumerate(case.experts[token]):
            if case.real[token]:
                queues.setdefault(expert, []).append(places[token][choice])
    assert all(sorted(queue) == list(range(len(queue))) for queue in queues.values())


@unhurried
@given(drawn())
def test_padding_queues_behind_all_experts_and_everybody_else_where_they_chose(case: Drawn) -> None:
    padding = [case.num_experts] * case.top_k
    expected = [mine if real else padding for mine, real in zip(case.experts, case.real, strict=True)]
    assert case.routing.queues().tolist() == expected


@unhurried
@given(drawn())
def test_tokens_are_counted_where_nobody_knows_how_many_there_are(case: Drawn) -> None:
    assert case.routing.num_real == case.num_real


def test_nobody_looks_at_the_mask_where_the_host_knows() -> None:
    """A mask without values could not be counted."""
    mask_T = torch.empty(5, dtype=torch.bool, device="meta")
    experts_TK = torch.zeros(5, 1, dtype=torch.int64, device="meta")
    assert Routing(experts_TK, torch.zeros(5, 1, device="meta"), mask_T, 4, known_real=3).num_real == 3
    assert Routing(experts_TK, torch.zeros(5, 1, device="meta"), None, 4).num_real == 5


@unhurried
@given(drawn())
def test_first_choices_stand_before_any_second_choice_of_the_same_expert(case: Drawn) -> None:
    places = positions_in_expert(case.routing).tolist()
    standing = [
        (expert, choice, token, places[token][choice])
        for token, mine in enumerate(case.experts)
        for choice, expert in enumerate(mine)
        if case.real[token]
    ]
    for (expert, choice, token, place), (other, later, behind, further) in product(standing, standing):
        if expert == other and (choice, token) < (later, behind):
            assert place < further


@unhurried
@given(drawn(), st.data())
def test_padding_takes_nobodys_place(case: Drawn, data: st.DataObject) -> None:
    """The same tokens with padding rows put in between keep their places, drops and weights."""
    order = data.draw(st.permutations(range(case.num_tokens + 3)))
    where = sorted(order[: case.num_tokens])
    gates = [[1.0] * case.num_experts for _ in range(case.num_tokens + 3)]
    mask = [False] * (case.num_tokens + 3)
    for row, gate, real in zip(where, case.gates, case.real, strict=True):
        gates[row], mask[row] = gate, real
    wider = Drawn(gates, mask, case.top_k)
    real_T = torch.tensor(case.real)
    places, wider_places = positions_in_expert(case.routing), positions_in_expert(wider.routing)[where]
    assert torch.equal(places[real_T], wider_places[real_T])
    dropped, wider_dropped = dropped_by(case, 2), dropped_by(wider, 2)
    assert torch.equal(dropped, wider_dropped[where])
    assert torch.equal(case.routing.weights(dropped), wider.routing.weights(wider_dropped)[where])
    assert not wider.routing.weights(wider_dropped)[[not real for real in mask]].any()


@unhurried
@given(drawn(), fractions())
def test_drops_and_weights_are_those_of_the_plain_gate(case: Drawn, fraction: float) -> None:
    slots = capacity(fraction, case.num_tokens)
    plain, dropped_TK = case.gated(slots), dropped_by(case, slots)
    assert dropped_TK.tolist() == plain.dropped
    torch.testing.assert_close(case.routing.weights(dropped_TK), torch.tensor(plain.weights), rtol=1e-6, atol=0)


@unhurried
@given(drawn(), st.integers(1, 5))
def test_weights_of_the_survivors_sum_to_one_and_of_none_to_zero(case: Drawn, slots: int) -> None:
    dropped_TK = dropped_by(case, slots)
    sums = case.routing.weights(dropped_TK).sum(dim=1).tolist()
    survives = case.routing.kept(dropped_TK).any(dim=1).tolist()
    assert sums == pytest.approx([float(alive) for alive in survives])


@unhurried
@given(drawn(), st.integers(1, 5))
def test_statement_4_second_choices_drop_before_any_first_choice_of_the_same_expert(case: Drawn, slots: int) -> None:
    dropped = dropped_by(case, slots).tolist()
    for expert in range(case.num_experts):
        if any(dropped[token][0] for token in case.wants(0, expert)):
            assert all(dropped[token][choice] for choice in range(1, case.top_k) for token in case.wants(choice, expert))


@unhurried
@given(drawn(), st.integers(1, 5))
def test_statement_4_the_number_of_drops_follows_from_the_loads_alone(case: Drawn, slots: int) -> None:
    """fairseq's overflow_expert1 and 2, computed from how many first and second choices every expert received."""
    dropped_K = dropped_by(case, slots).sum(dim=0).tolist()
    loads = [[len(case.wants(choice, expert)) for choice in range(case.top_k)] for expert in range(case.num_experts)]
    for choice in range(case.top_k):
        over = [max(0, sum(load[: choice + 1]) - slots) - max(0, sum(load[:choice]) - slots) for load in loads]
        assert dropped_K[choice] == sum(over)


def test_three_tokens_that_want_the_same_expert_are_served_in_order() -> None:
    routing = Routing(torch.tensor([[0, 1], [0, 1], [1, 0]]), torch.tensor([[0.6, 0.3], [0.5, 0.4], [0.7, 0.2]]), None, 2)
    assert positions_in_expert(routing).tolist() == [[0, 1], [1, 2], [0, 2]]
    dropped_TK = positions_in_expert(routing) >= 2
    assert dropped_TK.tolist() == [[False, False], [False, True], [False, True]]
    assert routing.weights(dropped_TK)[0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert routing.weights(dropped_TK)[1:].tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_weights_that_are_normalised_before_drops_do_not_grow_when_a_choice_is_lost() -> None:
    probs_TK = torch.tensor([[0.6, 0.3], [0.5, 0.3], [0.7, 0.2]])
    routing = Routing(
        torch.tensor([[0, 1], [0, 1], [1, 0]]), probs_TK, torch.tensor([True, True, False]), 2, normalized_before=True
    )
    weights_TK = routing.weights(torch.tensor([[False, False], [False, True], [False, False]]))
    assert weights_TK.flatten().tolist() == pytest.approx([2 / 3, 1 / 3, 5 / 8, 0, 0, 0])
    assert routing.weights()[1].tolist() == pytest.approx([5 / 8, 3 / 8])


def test_a_token_that_loses_all_choices_weighs_nothing() -> None:
    routing = Routing(torch.tensor([[0, 1], [0, 1]]), torch.full((2, 2), 0.5), None, 2)
    assert routing.weights(positions_in_expert(routing) >= 1).tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_a_single_choice_weighs_one_whatever_its_probability() -> None:
    routing = Routing(torch.tensor([[3]]), torch.tensor([[0.01]]), None, 4)
    assert routing.weights().tolist() == [[1.0]]


def test_probabilities_below_the_precision_of_float32_are_not_blown_up_to_one() -> None:
    routing = Routing(torch.tensor([[0]]), torch.tensor([[2.0**-30]]), None, 4)
    assert routing.weights().tolist() == [[2.0**-7]]


def test_places_of_a_full_sized_layer_are_those_of_the_plain_loop() -> None:
    random = torch.Generator().manual_seed(0)
    experts_TK = torch.rand(600, 128, generator=random).argsort(dim=1)[:, :4]
    real = (torch.rand(600, generator=random) < 0.9).tolist()
    found = positions_in_expert(Routing(experts_TK, torch.ones(600, 4), torch.tensor(real), 128)).tolist()
    expected = gated(experts_TK.tolist(), [[1.0] * 4] * 600, real, 128, 600).places
    assert [row for row, is_real in zip(found, real, strict=True) if is_real] == [row for row in expected if None not in row]


def test_final_weights_are_not_normalised_again() -> None:
    routing = Routing(torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0.5, 0.25], [2.0, 1.0]]), None, 3, final=True)
    assert routing.weights().tolist() == [[0.5, 0.25], [2.0, 1.0]]
    assert routing.weights(torch.tensor([[False, True], [False, False]])).tolist() == [[0.5, 0.0], [2.0, 1.0]]
