"""Two experts at a time: every active expert once, similar loads together, windows that never leave the rows."""

from itertools import accumulate, pairwise

import torch
from hypothesis import given
from torch.utils.flop_counter import FlopCounterMode

from moeprof.moe.experts import ExpertRows, make_ffn
from moeprof.moe.kernels.loop import loop, pairs_by_load, windows
from moeprof.records.ffn.mlp import MLP

from ..drawn import tokens, unhurried
from .rows import DIM, FFN_DIM, all_loads, by_hand, make_experts, segments

RELU = make_ffn(MLP, "relu")


def coupled(loads: list[int]) -> list[tuple[int, int]]:
    return list(pairs_by_load([0, *accumulate(loads)]))


@unhurried
@given(all_loads())
def test_every_expert_with_rows_is_taken_once_and_no_other(loads: list[int]) -> None:
    taken = [expert for couple in coupled(loads) for expert in set(couple)]
    assert sorted(taken) == [expert for expert, load in enumerate(loads) if load]


@unhurried
@given(all_loads())
def test_nobody_has_a_load_between_those_of_a_couple(loads: list[int]) -> None:
    ranges = [sorted(loads[expert] for expert in couple) for couple in coupled(loads)]
    assert all(lower[1] <= upper[0] for lower, upper in pairwise(ranges))


def test_the_busiest_of_an_odd_number_goes_alone() -> None:
    assert coupled([4, 0, 1, 3, 9, 1]) == [(2, 5), (0, 3), (4, 4)]
    assert coupled([0, 7]) == [(1, 1)]
    assert coupled([0, 0]) == []


@unhurried
@given(all_loads())
def test_two_experts_never_share_a_window(loads: list[int]) -> None:
    """The window of the one with the higher number is pushed back where the rows end, but never as far as the other's."""
    bounds = [0, *accumulate(loads)]
    for one, other in coupled(loads):
        length = max(loads[one], loads[other])
        starts = [min(bounds[expert], bounds[-1] - length) for expert in (one, other)]
        assert starts[0] < starts[1] or one == other
        assert starts[0] == bounds[one]
        assert 0 <= bounds[other] - starts[1] <= length - loads[other]


def test_windows_are_views_that_may_overlap() -> None:
    rows_RD = torch.arange(12.0).view(6, 2)[1:]
    views_2MD = windows(rows_RD, [0, 2], 3)
    assert views_2MD.tolist() == [rows_RD[0:3].tolist(), rows_RD[2:5].tolist()]
    assert views_2MD.untyped_storage().data_ptr() == rows_RD.untyped_storage().data_ptr()


def test_the_window_of_a_short_last_segment_is_pushed_back_into_the_rows_of_the_one_before() -> None:
    """Rows 1 to 8 and row 9: a window of eight rows for the last one begins at row 2."""
    inputs, experts = segments([1, 8, 1]), make_experts(3)
    assert coupled([1, 8, 1]) == [(0, 2), (1, 1)]
    torch.testing.assert_close(loop(inputs, experts.weights, RELU), by_hand(inputs, experts), rtol=1e-4, atol=1e-4)
    inputs = segments([0, 8, 1])
    assert coupled([0, 8, 1]) == [(1, 2)]
    torch.testing.assert_close(loop(inputs, experts.weights, RELU), by_hand(inputs, experts), rtol=1e-4, atol=1e-4)


def test_rows_may_lie_inside_a_larger_tensor() -> None:
    """As the rows of a later wave do."""
    experts, whole_RD = make_experts(3), tokens(20, DIM)
    inputs = ExpertRows(whole_RD[7:18], [0, 5, 5, 11])
    torch.testing.assert_close(loop(inputs, experts.weights, RELU), by_hand(inputs, experts), rtol=1e-4, atol=1e-4)


def test_weights_may_be_views_into_a_larger_buffer() -> None:
    experts, inputs = make_experts(6), segments([2, 0, 1])
    middle = experts.weights.map(lambda whole: whole[1::2])
    spread = ExpertRows(inputs.rows_RD, [0, 0, 2, 2, 2, 2, 3])
    torch.testing.assert_close(loop(inputs, middle, RELU), by_hand(spread, experts), rtol=1e-4, atol=1e-4)


def flops(loads: list[int]) -> int:
    """Of the products, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        loop(segments(loads), make_experts(len(loads)).weights, RELU)
    return int(counter.get_total_flops())


def test_an_expert_without_rows_costs_nothing() -> None:
    each_row = 2 * 2 * DIM * FFN_DIM
    assert flops([0, 0, 0]) == 0
    assert flops([4, 0, 0, 0]) == flops([4]) == 4 * each_row
    assert flops([3, 3, 0, 3, 3]) == 12 * each_row


def test_a_couple_costs_twice_the_longer_one() -> None:
    assert flops([1, 3]) == 2 * 3 * 2 * 2 * DIM * FFN_DIM
