"""Dynamic gating: the rows that are needed and no others, expert by expert, and every choice finds its own again."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moeprof.moe.dispatch import dynamic
from moeprof.moe.routing import Routing

from ..drawn import Drawn, drawn, fractions, tokens, unhurried, wanting

DIM = 3


def bounds_of(case: Drawn) -> list[int]:
    return [0, *accumulate(case.loads)]


@unhurried
@given(drawn(), fractions())
def test_statement_2_there_are_top_k_rows_of_every_token_that_is_no_padding(device: str, case: Drawn, fraction: float) -> None:
    dispatched = dynamic.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), fraction)
    assert dispatched.rows.rows_RD.shape == (case.top_k * case.num_real, DIM)
    assert dispatched.dropped_TK is None


@unhurried
@given(drawn())
def test_rows_stand_in_the_order_of_experts_and_of_tokens_within_an_expert(device: str, case: Drawn) -> None:
    marks_TD = torch.arange(float(case.num_tokens), device=device)[:, None]
    dispatched = dynamic.dispatch(marks_TD, case.routing_on(device), 1.0)
    expected = [
        float(token)
        for expert in range(case.num_experts)
        for token in range(case.num_tokens)
        if case.real[token] and expert in case.experts[token]
    ]
    assert dispatched.rows.rows_RD.flatten().tolist() == expected


@unhurried
@given(drawn())
def test_bounds_are_the_sums_of_the_loads(device: str, case: Drawn) -> None:
    offsets = dynamic.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), 1.0).rows.offsets
    assert isinstance(offsets, Tensor)
    assert offsets.dtype == torch.int32
    assert offsets.tolist() == bounds_of(case)


@unhurried
@given(drawn())
def test_every_choice_has_a_row_of_its_own_with_its_token_among_those_of_its_expert(device: str, case: Drawn) -> None:
    x_TD = tokens(case.num_tokens, DIM).to(device)
    dispatched, bounds = dynamic.dispatch(x_TD, case.routing_on(device), 1.0), bounds_of(case)
    rows = []
    for token in (token for token in range(case.num_tokens) if case.real[token]):
        for row, expert in zip(dispatched.row_TK[token].tolist(), case.experts[token], strict=True):
            assert bounds[expert] <= row < bounds[expert + 1]
            assert torch.equal(dispatched.rows.rows_RD[row], x_TD[token])
            rows.append(row)
    assert sorted(rows) == list(range(case.top_k * case.num_real))


@unhurried
@given(drawn())
def test_padding_points_at_some_row_and_weighs_nothing(device: str, case: Drawn) -> None:
    dispatched = dynamic.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), 1.0)
    padding_T = ~torch.tensor(case.real)
    assert not dispatched.weights_TK[padding_T].any()
    assert dispatched.row_TK.min() >= 0
    assert dispatched.row_TK.max() < max(case.top_k * case.num_real, 1)


@unhurried
@given(drawn(), st.sampled_from([1.0, 0.8]))
def test_what_comes_back_is_the_weighted_sum_over_a_tokens_choices(device: str, case: Drawn, scale: float) -> None:
    dispatched = dynamic.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), 1.0)
    outputs_RD = tokens(len(dispatched.rows.rows_RD), DIM, seed=2).to(device)
    expected_TD = torch.zeros(case.num_tokens, DIM, device=device)
    for token, weights in enumerate(case.dropless.weights):
        for row, weight in zip(dispatched.row_TK[token].tolist(), weights, strict=True):
            expected_TD[token] += scale * weight * outputs_RD[row] if weight else 0
    torch.testing.assert_close(dispatched.combine(outputs_RD, scale), expected_TD)


@unhurried
@given(drawn())
def test_a_host_that_knows_the_number_of_tokens_gets_the_same_as_one_that_counts(device: str, case: Drawn) -> None:
    x_TD = tokens(case.num_tokens, DIM).to(device)
    counted = dynamic.dispatch(x_TD, case.routing_on(device), 1.0)
    known = dynamic.dispatch(x_TD, replace(case.routing_on(device), known_real=case.num_real), 1.0)
    assert torch.equal(known.rows.rows_RD, counted.rows.rows_RD)
    assert torch.equal(known.row_TK, counted.row_TK)


def test_the_capacity_fraction_means_nothing(device: str) -> None:
    case, x_TD = wanting([[0, 1], [0, 2], [0, 1]], 3), tokens(3, DIM).to(device)
    small, large = (dynamic.dispatch(x_TD, case.routing_on(device), fraction) for fraction in (0.01, 1.0))
    assert torch.equal(small.rows.rows_RD, large.rows.rows_RD)


def test_three_tokens_of_two_choices_with_padding_between(device: str) -> None:
    case = wanting([[2, 0], [1, 0], [0, 2]], 4, mask=[True, False, True])
    dispatched = dynamic.dispatch(torch.tensor([[10.0], [20.0], [30.0]], device=device), case.routing_on(device), 1.0)
    assert dispatched.rows.rows_RD.flatten().tolist() == [10, 30, 10, 30]
    assert dispatched.rows.bounds == [0, 2, 2, 4, 4]
    assert dispatched.row_TK[[0, 2]].tolist() == [[2, 0], [1, 3]]
    assert dispatched.weights_TK.tolist() == [pytest.approx(row) for row in ([2 / 3, 1 / 3], [0, 0], [2 / 3, 1 / 3])]


def test_a_full_sized_layer_is_sorted_like_a_small_one(device: str) -> None:
    random = torch.Generator().manual_seed(0)
    experts_TK = torch.rand(700, 512, generator=random).argsort(dim=1)[:, :2]
    real_T = torch.rand(700, generator=random) < 0.9
    routing = Routing(experts_TK.to(device), torch.full((700, 2), 0.5, device=device), real_T.to(device), 512)
    dispatched = dynamic.dispatch(torch.arange(700.0, device=device)[:, None], routing, 0.05)
    wanted = sorted((expert, token) for token in real_T.nonzero().flatten().tolist() for expert in experts_TK[token].tolist())
    assert dispatched.rows.rows_RD.flatten().tolist() == [token for _, token in wanted]
    assert torch.equal(
        dispatched.rows.offsets.diff().cpu(),  # type: ignore[union-attr]
        torch.bincount(experts_TK[real_T].flatten(), minlength=512).int(),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_copies_of_the_tokens_and_weights_have_their_dtype(device: str, dtype: torch.dtype) -> None:
    x_TD = tokens(4, DIM).to(device, dtype)
    dispatched = dynamic.dispatch(x_TD, wanting([[0], [1], [0], [1]], 2).routing_on(device), 1.0)
    assert torch.equal(dispatched.rows.rows_RD, x_TD[[0, 2, 1, 3]])
    assert dispatched.weights_TK.dtype == dtype
