"""Static gating: a mask of S x E x c, slots that are filled or not, and the outputs of fairseq's einsums."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moeprof.moe.dispatch import static
from moeprof.moe.routing import Routing
from moeprof.records.recipe.gating import capacity

from ..drawn import Drawn, drawn, fractions, tokens, unhurried

DIM = 3


def slots_of(case: Drawn, fraction: float) -> int:
    return capacity(fraction, case.num_tokens)


def dense_masks(case: Drawn, slots: int) -> tuple[Tensor, Tensor]:
    """Dispatch mask and combine weights (S, E, c) of fairseq, one element after another."""
    gated = case.gated(slots)
    combine_SEC = torch.zeros(case.num_tokens, case.num_experts, slots)
    mask_SEC = torch.zeros_like(combine_SEC)
    for token in range(case.num_tokens):
        for choice, expert in enumerate(case.experts[token]):
            place = gated.places[token][choice]
            if place is not None and not gated.dropped[token][choice]:
                combine_SEC[token, expert, place] = gated.weights[token][choice]
                mask_SEC[token, expert, place] = 1.0
    return mask_SEC, combine_SEC


@unhurried
@given(drawn(), fractions())
def test_statement_2_the_rows_are_all_slots_whatever_the_routing(device: str, case: Drawn, fraction: float) -> None:
    dispatched = static.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), fraction)
    slots = slots_of(case, fraction)
    assert dispatched.rows.rows_RD.shape == (case.num_experts * slots, DIM)
    assert list(dispatched.rows.offsets) == [expert * slots for expert in range(case.num_experts + 1)]


@unhurried
@given(drawn(), fractions())
def test_dispatch_is_the_einsum_with_a_dense_mask(device: str, case: Drawn, fraction: float) -> None:
    x_SD = tokens(case.num_tokens, DIM).to(device)
    mask_SEC, combine_SEC = (dense.to(device) for dense in dense_masks(case, slots_of(case, fraction)))
    dispatched = static.dispatch(x_SD, case.routing_on(device), fraction)
    expected_ECD = torch.einsum("sec,sd->ecd", mask_SEC, x_SD)
    torch.testing.assert_close(dispatched.rows.rows_RD, expected_ECD.flatten(0, 1), rtol=0, atol=0)
    torch.testing.assert_close(dispatched.combine_weights_TR, combine_SEC.flatten(1), rtol=1e-6, atol=0)


@unhurried
@given(drawn(), fractions(), st.sampled_from([1.0, 0.8]))
def test_combine_is_the_einsum_with_dense_weights(device: str, case: Drawn, fraction: float, scale: float) -> None:
    dispatched = static.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), fraction)
    outputs_RD = tokens(len(dispatched.rows.rows_RD), DIM, seed=2).to(device)
    combine_SEC = dense_masks(case, slots_of(case, fraction))[1].to(device)
    expected_SD = scale * torch.einsum("sec,ecd->sd", combine_SEC, outputs_RD.view(case.num_experts, -1, DIM))
    torch.testing.assert_close(dispatched.combine(outputs_RD, scale), expected_SD)


@unhurried
@given(drawn(), fractions())
def test_a_choice_is_dropped_where_the_plain_gate_drops_it(device: str, case: Drawn, fraction: float) -> None:
    dispatched = static.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), fraction)
    assert dispatched.dropped_TK.tolist() == case.gated(slots_of(case, fraction)).dropped


@unhurried
@given(drawn(), fractions())
def test_a_slot_holds_one_token_or_nothing(device: str, case: Drawn, fraction: float) -> None:
    """Every kept choice fills one slot of its expert, from the first on; padding and dropped choices fill none."""
    marks_SD = torch.arange(1.0, case.num_tokens + 1, device=device)[:, None]
    dispatched = static.dispatch(marks_SD, case.routing_on(device), fraction)
    rows_EC = dispatched.rows.rows_RD.view(case.num_experts, -1).int().tolist()
    for expert, found in enumerate(rows_EC):
        queue = [token + 1 for choice in range(case.top_k) for token in case.wants(choice, expert)]
        assert found == (queue + [0] * len(found))[: len(found)]


@unhurried
@given(drawn(), fractions())
def test_a_token_with_all_choices_dropped_and_padding_come_back_as_zero(device: str, case: Drawn, fraction: float) -> None:
    dispatched = static.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), fraction)
    y_SD = dispatched.combine(torch.ones(len(dispatched.rows.rows_RD), DIM, device=device), 1.0)
    lost = case.gated(slots_of(case, fraction)).dropped
    for token in range(case.num_tokens):
        gone = not case.real[token] or all(lost[token])
        assert y_SD[token].tolist() == pytest.approx([0.0 if gone else 1.0] * DIM)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mask_rows_and_weights_have_the_dtype_of_the_tokens(device: str, dtype: torch.dtype) -> None:
    routing = Routing(torch.tensor([[0, 1]] * 4, device=device), torch.full((4, 2), 0.5, device=device), None, 2)
    dispatched = static.dispatch(torch.ones(4, DIM, dtype=dtype, device=device), routing, 0.5)
    assert {dispatched.rows.rows_RD.dtype, dispatched.combine_weights_TR.dtype} == {dtype}


def test_rows_in_bfloat16_are_copies_of_the_tokens_without_rounding(device: str) -> None:
    x_SD = tokens(64, 5).to(device).bfloat16()
    routing = Routing(torch.arange(64, device=device)[:, None] % 4, torch.ones(64, 1, device=device), None, 4)
    dispatched = static.dispatch(x_SD, routing, 1.0)
    rows_ECD = dispatched.rows.rows_RD.view(4, 64, 5)
    assert all(torch.equal(rows_ECD[token % 4, token // 4], x_SD[token]) for token in range(64))
