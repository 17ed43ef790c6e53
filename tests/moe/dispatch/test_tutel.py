"""Tutel's mode: the slots of static gating without the mask, or as many slots as the busiest expert needs."""

import pytest
import torch
from hypothesis import given

from moeprof.moe.dispatch import static, tutel
from moeprof.moe.routing import Routing
from moeprof.records.recipe.gating import capacity

from ..drawn import Drawn, drawn, fractions, tokens, unhurried, wanting

DIM = 3


@unhurried
@given(drawn(), fractions())
def test_rows_and_drops_are_those_of_static_gating_to_the_bit(device: str, case: Drawn, fraction: float) -> None:
    x_SD = tokens(case.num_tokens, DIM).to(device)
    masked, indexed = (module.dispatch(x_SD, case.routing_on(device), fraction) for module in (static, tutel))
    assert torch.equal(indexed.rows.rows_RD, masked.rows.rows_RD)
    assert indexed.rows.offsets == masked.rows.offsets
    assert isinstance(indexed.rows.offsets, range)
    assert indexed.dropped_TK is not None
    assert torch.equal(indexed.dropped_TK, masked.dropped_TK)


@unhurried
@given(drawn(), fractions())
def test_what_comes_back_is_what_comes_back_from_static_gating(device: str, case: Drawn, fraction: float) -> None:
    x_SD = tokens(case.num_tokens, DIM).to(device)
    masked, indexed = (module.dispatch(x_SD, case.routing_on(device), fraction) for module in (static, tutel))
    outputs_RD = tokens(len(masked.rows.rows_RD), DIM, seed=2).to(device)
    torch.testing.assert_close(indexed.combine(outputs_RD, 0.8), masked.combine(outputs_RD, 0.8))


@unhurried
@given(drawn(), fractions())
def test_a_choice_is_dropped_where_the_plain_gate_drops_it(device: str, case: Drawn, fraction: float) -> None:
    dispatched = tutel.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), fraction)
    assert dispatched.dropped_TK is not None
    assert dispatched.dropped_TK.tolist() == case.gated(capacity(fraction, case.num_tokens)).dropped


@unhurried
@given(drawn(), fractions())
def test_an_empty_slot_holds_zeros_and_a_full_one_its_token(device: str, case: Drawn, fraction: float) -> None:
    marks_SD = torch.arange(1.0, case.num_tokens + 1, device=device)[:, None]
    dispatched = tutel.dispatch(marks_SD, case.routing_on(device), fraction)
    for expert, found in enumerate(dispatched.rows.rows_RD.view(case.num_experts, -1).int().tolist()):
        queue = [token + 1 for choice in range(case.top_k) for token in case.wants(choice, expert)]
        assert found == (queue + [0] * len(found))[: len(found)]


@unhurried
@given(drawn())
def test_dropless_takes_the_largest_load_as_capacity_and_drops_nothing(device: str, case: Drawn) -> None:
    dispatched = tutel.dispatch(tokens(case.num_tokens, DIM).to(device), case.routing_on(device), 0.01, dropless=True)
    slots = max(case.loads)
    assert len(dispatched.rows.rows_RD) == case.num_experts * max(slots, 1)
    assert dispatched.dropped_TK is None
    torch.testing.assert_close(dispatched.weights_TK, torch.tensor(case.dropless.weights, device=device), rtol=1e-6, atol=0)


@unhurried
@given(drawn())
def test_dropless_is_static_gating_with_exactly_enough_room(device: str, case: Drawn) -> None:
    x_SD, slots = tokens(case.num_tokens, DIM).to(device), max(*case.loads, 1)
    masked = static.dispatch(x_SD, case.routing_on(device), slots / case.num_tokens - 1e-9)
    indexed = tutel.dispatch(x_SD, case.routing_on(device), 0.01, dropless=True)
    assert torch.equal(indexed.rows.rows_RD, masked.rows.rows_RD)
    outputs_RD = tokens(len(indexed.rows.rows_RD), DIM, seed=2).to(device)
    torch.testing.assert_close(indexed.combine(outputs_RD, 1.0), masked.combine(outputs_RD, 1.0))


def test_the_waste_of_dropless_is_the_largest_load_over_the_mean(device: str) -> None:
    """Loads 5, 2, 1, 0: four times five slots for eight choices."""
    case = wanting([[0], [0], [1], [0], [2], [0], [1], [0]], 4)
    dispatched = tutel.dispatch(tokens(8, DIM).to(device), case.routing_on(device), 1.0, dropless=True)
    assert (max(case.loads), len(dispatched.rows.rows_RD)) == (5, 20)
    assert len(dispatched.rows.rows_RD) / 8 == max(case.loads) / (sum(case.loads) / 4) == 2.5


def test_nothing_but_padding_leaves_dropless_one_slot_each(device: str) -> None:
    case = wanting([[0, 1], [2, 0]], 3, mask=[False, False])
    dispatched = tutel.dispatch(tokens(2, DIM).to(device), case.routing_on(device), 1.0, dropless=True)
    assert dispatched.rows.rows_RD.tolist() == [[0.0] * DIM] * 3
    assert dispatched.combine(torch.ones(3, DIM, device=device), 1.0).tolist() == [[0.0] * DIM] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_and_weights_have_the_dtype_of_the_tokens(device: str, dtype: torch.dtype) -> None:
    routing = Routing(torch.tensor([[0, 1]] * 4, device=device), torch.full((4, 2), 0.5, device=device), None, 2)
    dispatched = tutel.dispatch(torch.ones(4, DIM, dtype=dtype, device=device), routing, 0.5)
    assert {dispatched.rows.rows_RD.dtype, dispatched.weights_TK.dtype} == {dtype}
