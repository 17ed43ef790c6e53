"""Positions by their formulas, one number after another, and the same whether a sequence is read at once or in parts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moeprof.models.positions import Alibi, Rotary, Sinusoidal, make_positions

from .shapes import POSITIONS


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dim", [2, 7, 16])
def test_sinusoidal_adds_sines_then_cosines_of_falling_rates(dim: int) -> None:
    table_LD = Sinusoidal().embed(torch.zeros(1, 9, dim), 3)[0].tolist()
    half = dim // 2
    for position, row in enumerate(table_LD, start=3):
        angles = [position / 10_000 ** (rate / max(half - 1, 1)) for rate in range(half)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles] + [0.0] * (dim % 2)
        assert row == pytest.approx(expected, abs=1e-5)


def test_sinusoidal_counts_from_the_first_position_of_the_recipe() -> None:
    counted = make_positions("sinusoidal", 2, first_position=2)
    assert torch.equal(counted.embed(torch.zeros(1, 4, 8), 3), Sinusoidal().embed(torch.zeros(1, 4, 8), 5))


def test_sinusoidal_leaves_embeddings_below_it() -> None:
    x_BLD = normal(2, 5, 8)
    table = Sinusoidal().embed(torch.zeros_like(x_BLD), 0)
    torch.testing.assert_close(Sinusoidal().embed(x_BLD, 0), x_BLD + table)


def test_rotary_turns_each_pair_of_the_two_halves_by_its_own_angle() -> None:
    heads = normal(1, 1, 6, 4)
    turned = Rotary().rotate(heads, 2)
    for index in range(6):
        for pair, rate in enumerate([1.0, 10_000**-0.5]):
            angle = (index + 2) * rate
            left, right = heads[0, 0, index, pair].item(), heads[0, 0, index, pair + 2].item()
            expected = complex(left, right) * complex(math.cos(angle), math.sin(angle))
            assert turned[0, 0, index, pair].item() == pytest.approx(expected.real, abs=1e-5)
            assert turned[0, 0, index, pair + 2].item() == pytest.approx(expected.imag, abs=1e-5)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    query, key = normal(1, 1, 1, 8), normal(1, 1, 1, 8).flip(-1)
    scores = [(Rotary().rotate(query, 7 + shift) * Rotary().rotate(key, 3 + shift)).sum().item() for shift in (0, 1, 50)]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-4)


def test_rotary_keeps_lengths_and_leaves_the_first_position_alone() -> None:
    heads = normal(2, 3, 5, 8)
    turned = Rotary().rotate(heads, 0)
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))
    torch.testing.assert_close(turned[:, :, 0], heads[:, :, 0])


def test_alibi_has_the_slopes_of_its_paper_for_eight_heads() -> None:
    bias = Alibi(8).bias(2, 2, causal=True, like=torch.zeros(1))
    assert bias is not None
    assert (-bias[:, 1, 0]).tolist() == [2.0**-power for power in range(1, 9)]


@pytest.mark.parametrize("causal", [True, False])
def test_alibi_falls_with_the_distance_and_closes_the_future(causal: bool) -> None:
    bias_HLM = Alibi(2).bias(4, 4, causal=causal, like=torch.zeros(1))
    assert bias_HLM is not None
    for head, slope in enumerate([1 / 16, 1 / 256]):
        for query in range(4):
            for key in range(4):
                expected = -math.inf if causal and key > query else -slope * abs(query - key)
                assert bias_HLM[head, query, key].item() == expected


@pytest.mark.parametrize("kind", POSITIONS)
@given(first=st.integers(0, 20), length=st.integers(1, 6))
def test_a_part_of_a_sequence_gets_the_positions_it_has_in_the_whole(kind: str, first: int, length: int) -> None:
    positions, last = make_positions(kind, 2), first + length
    x_BLD, heads_BHLW = normal(1, 30, 8), normal(1, 2, 30, 4)
    part = slice(first, last)
    torch.testing.assert_close(positions.embed(x_BLD[:, part], first), positions.embed(x_BLD, 0)[:, part])
    torch.testing.assert_close(positions.rotate(heads_BHLW[:, :, part], first), positions.rotate(heads_BHLW, 0)[:, :, part])
    whole = positions.bias(last, last, causal=True, like=x_BLD)
    tail = positions.bias(length, last, causal=True, like=x_BLD)
    assert (whole is None) == (tail is None)
    if whole is not None and tail is not None:
        assert torch.equal(tail, whole[:, first:])


@pytest.mark.parametrize("kind", POSITIONS)
def test_positions_have_the_dtype_of_what_they_join(kind: str) -> None:
    positions, x = make_positions(kind, 2), torch.zeros(1, 2, 3, 4, dtype=torch.bfloat16)
    assert positions.embed(x[0], 0).dtype == torch.bfloat16
    assert positions.rotate(x, 0).dtype == torch.bfloat16
    bias = positions.bias(3, 3, causal=True, like=x)
    assert bias is None or bias.dtype == torch.bfloat16
