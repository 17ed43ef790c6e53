"""Experts' weights are views, and a wave sees the rows of its own experts and no others."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moeprof.moe.experts import ACTIVATIONS, FFN, ExpertRows, make_ffn, run_experts, wave_rows
from moeprof.records.ffn.mlp import MLP
from moeprof.store.resident import ExpertWeights, ResidentStore, Store

from .drawn import WaveStore, tokens, unhurried
from .kernels.rows import DIM, FFN_DIM, all_loads, make_experts, padded, segments

BOUNDS = {
    "range": range(0, 10, 2),
    "list": [0, 2, 4, 6, 8],
    "tensor": torch.tensor([0, 2, 4, 6, 8], dtype=torch.int32),
}


def parts(inputs: ExpertRows, store: Store) -> list[ExpertRows]:
    """What the kernel is handed in every wave."""
    seen = []

    def looking(part: ExpertRows, weights: ExpertWeights, _ffn: FFN) -> Tensor:
        assert len(part.offsets) - 1 == len(weights["w1"])
        seen.append(part)
        return part.rows_RD

    assert torch.equal(run_experts(looking, inputs, store, make_ffn(MLP, "relu")), inputs.rows_RD)
    return seen


@pytest.mark.parametrize("offsets", BOUNDS.values(), ids=BOUNDS)
def test_a_wave_sees_the_rows_of_its_own_experts_and_counts_from_its_own_first_row(offsets: range | list[int] | Tensor) -> None:
    inputs = ExpertRows(tokens(8, DIM), offsets)
    first, second = parts(inputs, WaveStore(make_experts(4).weights, [1, 3]))
    assert torch.equal(first.rows_RD, inputs.rows_RD[:2])
    assert torch.equal(second.rows_RD, inputs.rows_RD[2:])
    assert [first.bounds, second.bounds] == [[0, 2], [0, 2, 4, 6]]


def test_padded_buffers_stay_padded_in_every_wave() -> None:
    offsets = [part.offsets for part in parts(padded(4, 3), WaveStore(make_experts(4).weights, [1, 3]))]
    assert offsets == [range(0, 4, 3), range(0, 10, 3)]


@pytest.mark.parametrize("offsets", BOUNDS.values(), ids=BOUNDS)
def test_one_wave_of_all_experts_is_handed_on_untouched(offsets: range | list[int] | Tensor) -> None:
    """So that bounds on a device stay there."""
    inputs = ExpertRows(tokens(8, DIM), offsets)
    (part,) = parts(inputs, ResidentStore(make_experts(4).weights))
    assert part is inputs


def test_a_wave_may_have_experts_without_rows() -> None:
    inputs = ExpertRows(tokens(3, DIM), [0, 2, 2, 3])
    assert [len(part.rows_RD) for part in parts(inputs, WaveStore(make_experts(3).weights, [1, 1, 1]))] == [2, 0, 1]


def test_places_of_a_wave_may_be_empty_and_in_any_order() -> None:
    """Experts 2 and 0 of three in the second and the fourth of four places."""
    part = wave_rows([-1, 2, -1, 0], [0, 2, 3, 6])
    rows_RD = tokens(6, DIM)
    assert torch.equal(part.rows(ExpertRows(rows_RD, [0, 2, 3, 6])).rows_RD, rows_RD[[3, 4, 5, 0, 1]])
    assert (part.offsets, part.ranges) == ([0, 0, 3, 3, 5], [(3, 6), (0, 2)])


def test_neighbouring_rows_are_not_copied() -> None:
    rows_RD = tokens(6, DIM)
    part = wave_rows([1, 2], [0, 2, 3, 6])
    assert part.ranges == [(2, 6)]
    assert part.rows(ExpertRows(rows_RD, [0, 2, 3, 6])).rows_RD.data_ptr() == rows_RD[2:].data_ptr()


@unhurried
@given(all_loads(), st.data())
def test_the_outputs_of_all_waves_stand_in_the_order_of_the_rows(loads: list[int], data: st.DataObject) -> None:
    """A kernel that gives every row back with the number of experts before its wave added."""
    first = data.draw(st.integers(1, len(loads)))
    sizes = [size for size in (first, len(loads) - first) if size]

    def marking(inputs: ExpertRows, weights: ExpertWeights, _ffn: FFN) -> Tensor:
        return inputs.rows_RD + weights["b2"][0, 0]

    experts, inputs = make_experts(len(loads)), segments(loads)
    experts.b2.copy_(torch.arange(len(loads))[:, None].expand(-1, DIM))
    outputs_RD = run_experts(marking, inputs, WaveStore(experts.weights, sizes), make_ffn(MLP, "relu"))
    waves_R = torch.tensor([0.0] * sum(loads[:first]) + [float(first)] * sum(loads[first:]))
    assert torch.equal(outputs_RD, inputs.rows_RD + waves_R[:, None])


@pytest.mark.parametrize("offsets", BOUNDS.values(), ids=BOUNDS)
def test_bounds_are_whole_numbers_on_the_host(offsets: range | list[int] | Tensor) -> None:
    bounds = ExpertRows(tokens(8, DIM), offsets).bounds
    assert bounds == [0, 2, 4, 6, 8]
    assert {type(bound) for bound in bounds} == {int}


def test_the_weights_handed_out_are_the_parameters_themselves() -> None:
    experts = make_experts(3)
    assert [view.data_ptr() for view in experts.weights.values()] == [
        parameter.data_ptr() for parameter in experts.parameters()
    ]
    assert {name: tuple(view.shape) for name, view in experts.weights.items()} == {
        "w1": (3, DIM, FFN_DIM),
        "b1": (3, FFN_DIM),
        "w2": (3, FFN_DIM, DIM),
        "b2": (3, DIM),
    }


def test_gelu_is_the_exact_one() -> None:
    assert ACTIVATIONS["gelu"](torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(0.8413447460685429)
