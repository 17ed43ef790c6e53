"""The router scores in float32, takes one maximum after another, and gives ties to the lowest id."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moeprof.instrument.step import Step
from moeprof.moe.router import Router, best

from . import plain
from .drawn import Decided, Drawn, drawn, tokens, unhurried

ALL_REAL = Step(real_T=None)


def router_of(weight_ED: list[list[float]], top_k: int = 1) -> Router:
    """A router with this weight."""
    router = Router("0", len(weight_ED[0]), len(weight_ED), top_k).requires_grad_(False)
    router.weight.copy_(torch.tensor(weight_ED))
    return router


@unhurried
@given(drawn())
def test_the_choices_are_those_of_a_search_by_hand(case: Drawn) -> None:
    assert best(torch.tensor(case.gates), case.top_k).tolist() == case.experts


@unhurried
@given(drawn())
def test_the_choices_of_a_token_are_distinct(case: Drawn) -> None:
    assert all(len(set(mine)) == case.top_k for mine in best(torch.tensor(case.gates), case.top_k).tolist())


@pytest.mark.parametrize("num_experts", [1, 2, 16, 128, 513])
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_among_equals_the_lowest_ids_win_whatever_the_width(num_experts: int, top_k: int) -> None:
    top_k = min(top_k, num_experts)
    gates_TE = torch.full((3, num_experts), 1 / num_experts)
    assert best(gates_TE, top_k).tolist() == [list(range(top_k))] * 3


def test_a_tie_for_the_second_place_goes_to_the_lowest_id_even_behind_the_first() -> None:
    assert best(torch.tensor([[0.2, 0.2, 0.4, 0.2]]), 3).tolist() == [[2, 0, 1]]


def test_the_gates_that_choices_are_made_from_stay_as_they_are() -> None:
    gates_TE = torch.tensor([[0.5, 0.3, 0.2]])
    best(gates_TE, 3)
    assert gates_TE.tolist() == torch.tensor([[0.5, 0.3, 0.2]]).tolist()


@unhurried
@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 10))
def test_gates_are_a_softmax_over_experts(num_tokens: int, num_experts: int, seed: int) -> None:
    router = Router("0", 5, num_experts, 1).requires_grad_(False)
    router.weight.copy_(tokens(num_experts, 5, seed))
    x_TD = tokens(num_tokens, 5, seed + 1)
    logits_TE = x_TD.double().numpy() @ router.weight.double().numpy().T
    powers_TE = np.exp(logits_TE)
    np.testing.assert_allclose(router.gates(x_TD).numpy(), powers_TE / powers_TE.sum(axis=1, keepdims=True), rtol=1e-5)


def test_the_weight_and_the_gates_are_float32_behind_a_bfloat16_model() -> None:
    router = Router("0", 4, 3, 2)
    assert router.weight.dtype == torch.float32
    assert router.gates(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.float32
    assert router(torch.ones(2, 4, dtype=torch.bfloat16), ALL_REAL).probs_TK.dtype == torch.float32


def test_float32_tells_experts_apart_that_bfloat16_cannot() -> None:
    almost_equal = [[1.0], [1.001]]
    assert torch.tensor(almost_equal).bfloat16().unique().tolist() == [1.0]
    router = router_of(almost_equal)
    assert router(torch.ones(1, 1, dtype=torch.bfloat16), ALL_REAL).experts_TK.tolist() == [[1]]


def test_large_logits_do_not_overflow() -> None:
    routing = router_of([[100.0], [200.0], [-300.0]], top_k=2)(torch.tensor([[3.0]]), ALL_REAL)
    assert routing.experts_TK.tolist() == [[1, 0]]
    assert routing.probs_TK.tolist() == [[1.0, 0.0]]


def test_the_probabilities_are_those_of_the_chosen_experts_before_any_renormalising() -> None:
    weights = torch.tensor([0.5, 0.3, 0.2]).log()[:, None].tolist()
    routing = router_of(weights, top_k=2)(torch.ones(1, 1), ALL_REAL)
    assert routing.experts_TK.tolist() == [[0, 1]]
    assert routing.probs_TK[0].tolist() == pytest.approx([0.5, 0.3])


def test_padding_gets_choices_that_nobody_counts() -> None:
    real_T = torch.tensor([True, False])
    routing = router_of([[1.0], [2.0]])(torch.ones(2, 1), Step(real_T=real_T))
    assert routing.real_T is real_T
    assert routing.kept().tolist() == [[True], [False]]


@pytest.mark.parametrize("num_real", [None, 1])
def test_what_the_host_knows_of_padding_goes_along_with_the_decisions(num_real: int | None) -> None:
    routing = router_of([[1.0], [2.0]])(torch.ones(2, 1), Step(torch.tensor([True, False]), num_real))
    assert (routing.known_real, routing.num_real) == (num_real, 1)


def test_forced_experts_keep_the_routers_own_probabilities() -> None:
    router = router_of(torch.tensor([0.5, 0.3, 0.2]).log()[:, None].tolist(), top_k=2)
    router.forced = Decided(torch.tensor([[2, 0]]))
    routing = router(torch.ones(1, 1), ALL_REAL)
    assert routing.experts_TK.tolist() == [[2, 0]]
    assert routing.probs_TK[0].tolist() == pytest.approx([0.2, 0.5])


def test_a_source_that_knows_the_probabilities_brings_its_own() -> None:
    router = router_of([[1.0], [2.0], [3.0]], top_k=2)
    router.forced = Decided(torch.tensor([[2, 0]]), torch.tensor([[0.75, 0.125]]))
    routing = router(torch.ones(1, 1), ALL_REAL)
    assert routing.probs_TK.tolist() == [[0.75, 0.125]]


def test_the_plain_search_agrees_with_sorting_where_nothing_ties() -> None:
    gates = torch.rand(50, 8, generator=torch.Generator().manual_seed(3))
    by_sorting = gates.sort(dim=1, descending=True).indices[:, :3]
    assert plain.choices(gates.tolist(), 3) == by_sorting.tolist() == best(gates, 3).tolist()
