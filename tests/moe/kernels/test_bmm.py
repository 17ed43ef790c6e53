"""Batched products over padded buffers, and a refusal of anything else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from moeprof.moe.experts import ExpertRows, make_ffn
from moeprof.moe.kernels.bmm import bmm
from moeprof.records.ffn.form import FFNForm
from moeprof.records.ffn.mlp import MLP

from ..drawn import unhurried
from .rows import DIM, FFN_DIM, by_hand, every_ffn, make_experts, padded

RELU = make_ffn(MLP, "relu")


@every_ffn
@unhurried
@given(num_experts=st.integers(1, 5), slots=st.integers(1, 4))
def test_batched_products_are_the_ffn_of_every_row(
    form: FFNForm, bias: bool, activation: str, num_experts: int, slots: int
) -> None:
    experts, inputs = make_experts(num_experts, 3, 5, form, bias=bias), padded(num_experts, slots, 3)
    outputs_RD = bmm(inputs, experts.weights, make_ffn(form, activation))
    torch.testing.assert_close(outputs_RD, by_hand(inputs, experts, activation), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("offsets", [[0, 2, 4], torch.tensor([0, 2, 4], dtype=torch.int32)], ids=["list", "tensor"])
def test_experts_with_rows_of_their_own_number_are_refused_even_where_all_have_as_many(offsets: list[int] | Tensor) -> None:
    with pytest.raises(ValueError, match="kernel bmm needs equally many rows of every expert: use a padded dispatch"):
        bmm(ExpertRows(torch.ones(4, DIM), offsets), make_experts(2).weights, RELU)


def test_empty_slots_are_computed_like_full_ones() -> None:
    with FlopCounterMode(display=False) as counter:
        bmm(ExpertRows(torch.zeros(6, DIM), range(0, 7, 2)), make_experts(3).weights, RELU)
    assert counter.get_total_flops() == 2 * 2 * 6 * DIM * FFN_DIM
