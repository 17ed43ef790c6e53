"""Physical experts: any placement computes what the layer computes, and copies share their tokens evenly."""

from collections import Counter

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from moeprof.moe.deployment import deploy_placement, moved_bytes, moved_weights
from moeprof.moe.physical_experts import PhysicalExperts
from moeprof.parallel.group import ALONE
from moeprof.records.recipe.variant import Variant
from tests.moe.drawn import Drawn, drawn, forced_layer, make_layer, make_recipe, tokens, under, unhurried, wanting

PLACED = Variant("dynamic", "loop", placement="greedy")


def test_physical_ids_count_through_the_ranks_and_a_rank_knows_its_own() -> None:
    placed = PhysicalExperts([[2, 0], [1, 2]], 3, rank=1)
    assert list(placed.held) == [1, 2]
    assert placed.num_physical == 4
    assert placed.physical_P.tolist() == [1, 2, 0, 3]  # expert 0 is id 1, expert 1 id 2, expert 2 ids 0 and 3


def test_choices_of_a_copied_expert_take_turns_that_begin_with_the_step_and_the_rank() -> None:
    routing = wanting([[0], [0], [1], [0]], 2).routing
    first = PhysicalExperts([[0, 1], [0, 1]], 2, rank=0)
    assert first.routed(routing, 0).experts_TK.flatten().tolist() == [0, 2, 1, 0]
    assert first.routed(routing, 1).experts_TK.flatten().tolist() == [2, 0, 3, 2]
    second = PhysicalExperts([[0, 1], [0, 1]], 2, rank=1)
    assert second.routed(routing, 0).experts_TK.flatten().tolist() == [2, 0, 3, 2]


def test_first_choices_come_before_second_ones_and_padding_takes_no_turn() -> None:
    routing = wanting([[0, 1], [1, 0], [1, 0], [0, 1]], 2, [True, True, False, True]).routing
    found = PhysicalExperts([[0, 1], [0, 1]], 2, rank=0).routed(routing, 0)
    real = found.experts_TK[routing.real_T]
    assert real.tolist() == [[0, 3], [1, 0], [2, 1]]  # expert 0: tokens 0, 3, then the second choice of token 1
    assert found.num_experts == 4


@st.composite
def holdings(draw: st.DrawFn, num_experts: int) -> list[list[int]]:
    """One to three ranks with equally many slots, every expert in at least one, any of them in more."""
    num_ranks = draw(st.integers(1, 3))
    slots = -(-num_experts // num_ranks) + draw(st.integers(0, 2))
    free = num_ranks * slots - num_experts
    extra = draw(st.lists(st.integers(0, num_experts - 1), min_size=free, max_size=free))
    order = draw(st.permutations([*range(num_experts), *extra]))
    return [list(order[start : start + slots]) for start in range(0, len(order), slots)]


@unhurried
@given(drawn(), st.integers(0, 9), st.data())
def test_every_choice_reaches_a_copy_of_its_expert_and_copies_differ_by_one_at_most(
    case: Drawn, step: int, data: st.DataObject
) -> None:
    ranks = data.draw(holdings(case.num_experts))
    logical = np.array([expert for held in ranks for expert in held])
    found = PhysicalExperts(ranks, case.num_experts, rank=0).routed(case.routing, step)
    assert logical[found.experts_TK.numpy()].tolist() == case.experts
    used = Counter(found.experts_TK[torch.tensor(case.real)].flatten().tolist())
    for expert in range(case.num_experts):
        shares = [used[int(physical)] for physical in np.flatnonzero(logical == expert)]
        assert max(shares) - min(shares) <= 1
        assert sum(shares) == case.loads[expert]


@unhurried
@given(drawn(), st.integers(0, 9), st.data())
def test_a_placement_leaves_outputs_unchanged(case: Drawn, index: int, data: st.DataObject) -> None:
    """Statement 22, on one rank that plays all of them."""
    layer = forced_layer(case)
    ranks = data.draw(holdings(case.num_experts))
    x_TD = tokens(case.num_tokens, 4)
    expected = under(layer, x_TD, case.step, PLACED.unplaced)
    deploy_placement(layer, PLACED, [[expert for held in ranks for expert in held]])
    torch.testing.assert_close(under(layer, x_TD, case.step, PLACED), expected, rtol=1e-5, atol=1e-5)
    assert layer.placement is not None
    torch.testing.assert_close(under(layer, x_TD, case.step, PLACED.unplaced), expected, rtol=0, atol=0)
    assert layer.placement is None


def test_the_weights_of_every_slot_are_those_of_its_expert() -> None:
    weights = make_layer(make_recipe(experts=4)).experts.weights
    placed = PhysicalExperts([[3, 0, 3, 1, 2]], 4, rank=0)
    for name, found in moved_weights(weights, placed, ALONE).items():
        assert torch.equal(found, weights[name][[3, 0, 3, 1, 2]])
    assert moved_bytes(weights, placed) == 0
    expert_bytes = 4 * (2 * 4 * 8 + 8 + 4)
    shares = [weights.map(lambda whole, first=first: whole[first : first + 2]) for first in (0, 2)]
    crossing = [moved_bytes(shares[rank], PhysicalExperts([[3, 0, 1], [2, 1, 0]], 4, rank)) for rank in (0, 1)]
    assert crossing == [expert_bytes, 2 * expert_bytes]
