"""Kernels compute every expert's rows with its own weights, in as many waves as the store hands out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moeprof.moe.experts import ACTIVATIONS, KERNELS, ExpertRows, Experts, bmm, run_experts, waves_of
from moeprof.store.resident import ResidentStore

from . import plain
from .drawn import WaveStore, tokens, unhurried

DIM, FFN_DIM = 3, 5


def make_experts(num_experts: int) -> Experts:
    """Normal weights and biases."""
    experts = Experts(num_experts, DIM, FFN_DIM).requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random))
    return experts


def padded(num_experts: int, slots: int) -> ExpertRows:
    """Normal rows, the same number for every expert."""
    return ExpertRows(tokens(num_experts * slots, DIM), range(0, (num_experts + 1) * slots, slots))


def by_hand(rows_RD: Tensor, experts: Experts, slots: int, activation: str) -> Tensor:
    """Row after row through its expert."""
    parameters = [parameter.double().numpy() for parameter in experts.weights]
    outputs = [
        plain.ffn(row_D, *(stacked[index // slots] for stacked in parameters), activation)
        for index, row_D in enumerate(rows_RD.double().numpy())
    ]
    return torch.tensor(np.array(outputs), dtype=torch.float32)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@unhurried
@given(num_experts=st.integers(1, 5), slots=st.integers(1, 4))
def test_batched_products_are_the_ffn_of_every_row(activation: str, num_experts: int, slots: int) -> None:
    experts, inputs = make_experts(num_experts), padded(num_experts, slots)
    outputs_RD = bmm(inputs, experts.weights, ACTIVATIONS[activation])
    torch.testing.assert_close(outputs_RD, by_hand(inputs.rows_RD, experts, slots, activation), rtol=1e-4, atol=1e-5)


@unhurried
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4), slots=st.integers(1, 3))
def test_experts_in_several_waves_give_the_same_as_in_one(sizes: list[int], slots: int) -> None:
    num_experts = sum(sizes)
    experts, inputs = make_experts(num_experts), padded(num_experts, slots)
    relu = ACTIVATIONS["relu"]
    together = run_experts(KERNELS["bmm"], inputs, ResidentStore(experts.weights), relu)
    in_waves = run_experts(KERNELS["bmm"], inputs, WaveStore(experts.weights, sizes), relu)
    torch.testing.assert_close(in_waves, together)


@pytest.mark.parametrize("offsets", [range(0, 10, 2), [0, 2, 4, 6, 8], torch.tensor([0, 2, 4, 6, 8])])
def test_a_wave_sees_the_rows_of_its_own_experts(offsets: range | list[int] | Tensor) -> None:
    inputs = ExpertRows(tokens(8, DIM), offsets)
    store = WaveStore(make_experts(4).weights, [1, 3])
    parts = [(part.rows_RD, part.offsets, len(weights.w1_EDF)) for part, weights in waves_of(inputs, store)]
    assert [number for *_, number in parts] == [1, 3]
    assert torch.equal(parts[0][0], inputs.rows_RD[:2])
    assert torch.equal(parts[1][0], inputs.rows_RD[2:])
    assert [[int(bound) for bound in bounds] for _, bounds, _ in parts] == [[0, 2], [2, 4, 6, 8]]


def test_a_wave_may_have_experts_without_rows() -> None:
    inputs = ExpertRows(tokens(3, DIM), [0, 2, 2, 3])
    parts = [part.rows_RD for part, _ in waves_of(inputs, WaveStore(make_experts(3).weights, [1, 1, 1]))]
    assert [len(rows) for rows in parts] == [2, 0, 1]


def test_the_weights_handed_out_are_the_parameters_themselves() -> None:
    experts = make_experts(3)
    assert [view.data_ptr() for view in experts.weights] == [parameter.data_ptr() for parameter in experts.parameters()]
    assert [tuple(view.shape) for view in experts.weights] == [(3, DIM, FFN_DIM), (3, FFN_DIM), (3, FFN_DIM, DIM), (3, DIM)]


def test_gelu_is_the_exact_one() -> None:
    assert ACTIVATIONS["gelu"](torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(0.8413447460685429)
