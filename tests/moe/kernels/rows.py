"""Experts and rows for kernels: normal numbers, segments of any length, and what every row becomes by hand."""

from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from moeprof.moe.experts import ExpertRows, Experts
from moeprof.records.ffn.form import FFNForm
from moeprof.records.ffn.gated import GATED
from moeprof.records.ffn.mlp import MLP

from .. import plain
from ..drawn import tokens

DIM, FFN_DIM = 4, 8
"""In float32 multiples of 16 bytes, which torch's grouped product asks for."""


every_ffn = pytest.mark.parametrize(
    ("form", "bias", "activation"),
    [
        (MLP, True, "gelu"),
        (MLP, True, "relu"),
        (MLP, False, "relu"),
        (GATED, True, "silu"),
        (GATED, False, "silu"),
        (GATED, False, "gelu"),
    ],
    ids=["mlp-gelu", "mlp-relu", "mlp-relu-no_bias", "gated-silu", "gated-silu-no_bias", "gated-gelu-no_bias"],
)


def make_experts(
    num_experts: int, dim: int = DIM, ffn_dim: int = FFN_DIM, form: FFNForm = MLP, *, bias: bool = True
) -> Experts:
    """Experts with normal weights and biases."""
    experts = Experts(num_experts, form.shapes(dim, ffn_dim, bias=bias)).requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random))
    return experts


def padded(num_experts: int, slots: int, dim: int = DIM, device: str = "cpu") -> ExpertRows:
    """Normal rows, the same number for every expert."""
    return ExpertRows(tokens(num_experts * slots, dim).to(device), range(0, (num_experts + 1) * slots, slots))


def segments(loads: list[int], dim: int = DIM, device: str = "cpu") -> ExpertRows:
    """Normal rows, as many for every expert as it has, and their bounds as dynamic gating gives them."""
    bounds = torch.tensor([0, *accumulate(loads)], dtype=torch.int32, device=device)
    return ExpertRows(tokens(sum(loads), dim).to(device), bounds)


def all_loads() -> st.SearchStrategy[list[int]]:
    """Rows of each expert; many have none."""
    return st.lists(st.just(0) | st.integers(0, 7), min_size=1, max_size=7)


def by_hand(inputs: ExpertRows, experts: Experts, activation: str = "relu") -> Tensor:
    """Row after row through its expert, on the CPU."""
    parameters = {name: whole.cpu().double().numpy() for name, whole in experts.weights.items()}
    rows_RD = inputs.rows_RD.cpu().double().numpy()
    outputs = [
        plain.ffn(row_D, plain.of_expert(parameters, expert), activation)
        for expert, (first, last) in enumerate(pairwise(inputs.bounds))
        for row_D in rows_RD[first:last]
    ]
    return torch.tensor(np.array(outputs).reshape(rows_RD.shape), dtype=torch.float32)
