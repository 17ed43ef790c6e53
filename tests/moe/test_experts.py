"""Experts' weights are views, and a wave sees the rows of its own experts and no others."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moeprof.moe.experts import ACTIVATIONS, Activation, ExpertRows, run_experts, waves_of
from moeprof.store.resident import ExpertWeights, ResidentStore

from .drawn import WaveStore, tokens, unhurried
from .kernels.rows import DIM, FFN_DIM, all_loads, make_experts, padded, segments

BOUNDS = {
    "range": range(0, 10, 2),
    "list": [0, 2, 4, 6, 8],
    "tensor": torch.tensor([0, 2, 4, 6, 8], dtype=torch.int32),
}


@pytest.mark.parametrize("offsets", BOUNDS.values(), ids=BOUNDS)
def test_a_wave_sees_the_rows_of_its_own_experts_and_counts_from_its_own_first_row(offsets: range | list[int] | Tensor) -> None:
    inputs = ExpertRows(tokens(8, DIM), offsets)
    store = WaveStore(make_experts(4).weights, [1, 3])
    parts = [(part.rows_RD, part.bounds, len(weights.w1_EDF)) for part, weights in waves_of(inputs, store)]
    assert [number for *_, number in parts] == [1, 3]
    assert torch.equal(parts[0][0], inputs.rows_RD[:2])
    assert torch.equal(parts[1][0], inputs.rows_RD[2:])
    assert [bounds for _, bounds, _ in parts] == [[0, 2], [0, 2, 4, 6]]


def test_padded_buffers_stay_padded_in_every_wave() -> None:
    parts = [part.offsets for part, _ in waves_of(padded(4, 3), WaveStore(make_experts(4).weights, [1, 3]))]
    assert parts == [range(0, 4, 3), range(0, 10, 3)]


@pytest.mark.parametrize("offsets", BOUNDS.values(), ids=BOUNDS)
def test_one_wave_of_all_experts_is_handed_on_untouched(offsets: range | list[int] | Tensor) -> None:
    """So that bounds on a device stay there."""
    inputs, weights = ExpertRows(tokens(8, DIM), offsets), make_experts(4).weights
    ((part, handed_out),) = waves_of(inputs, ResidentStore(weights))
    assert part is inputs
    assert handed_out is weights


def test_a_wave_may_have_experts_without_rows() -> None:
    inputs = ExpertRows(tokens(3, DIM), [0, 2, 2, 3])
    parts = [part.rows_RD for part, _ in waves_of(inputs, WaveStore(make_experts(3).weights, [1, 1, 1]))]
    assert [len(rows) for rows in parts] == [2, 0, 1]


@unhurried
@given(all_loads(), st.data())
def test_the_outputs_of_all_waves_stand_in_the_order_of_the_rows(loads: list[int], data: st.DataObject) -> None:
    """A kernel that gives every row back with the number of experts before its wave added."""
    first = data.draw(st.integers(1, len(loads)))
    sizes = [size for size in (first, len(loads) - first) if size]

    def marking(inputs: ExpertRows, weights: ExpertWeights, _activation: Activation) -> Tensor:
        return inputs.rows_RD + weights.b2_ED[0, 0]

    experts, inputs = make_experts(len(loads)), segments(loads)
    experts.b2.copy_(torch.arange(len(loads))[:, None].expand(-1, DIM))
    outputs_RD = run_experts(marking, inputs, WaveStore(experts.weights, sizes), ACTIVATIONS["relu"])
    waves_R = torch.tensor([0.0] * sum(loads[:first]) + [float(first)] * sum(loads[first:]))
    assert torch.equal(outputs_RD, inputs.rows_RD + waves_R[:, None])


@pytest.mark.parametrize("offsets", BOUNDS.values(), ids=BOUNDS)
def test_bounds_are_whole_numbers_on_the_host(offsets: range | list[int] | Tensor) -> None:
    bounds = ExpertRows(tokens(8, DIM), offsets).bounds
    assert bounds == [0, 2, 4, 6, 8]
    assert {type(bound) for bound in bounds} == {int}


def test_the_weights_handed_out_are_the_parameters_themselves() -> None:
    experts = make_experts(3)
    assert [view.data_ptr() for view in experts.weights] == [parameter.data_ptr() for parameter in experts.parameters()]
    assert [tuple(view.shape) for view in experts.weights] == [(3, DIM, FFN_DIM), (3, FFN_DIM), (3, FFN_DIM, DIM), (3, DIM)]


def test_gelu_is_the_exact_one() -> None:
    assert ACTIVATIONS["gelu"](torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(0.8413447460685429)
