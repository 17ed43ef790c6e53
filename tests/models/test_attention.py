"""Attention against loops over queries and keys: causal or not, with padding, behind a cache, over a memory."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from moeprof.models.attention import Attention, KeyValueCache
from moeprof.models.positions import make_positions

from .shapes import POSITIONS, real_up_to

DIM, HEADS = 8, 2
WIDTH = DIM // HEADS
PLAIN = make_positions("sinusoidal", HEADS)


def make_attention() -> Attention:
    attention = Attention(DIM, HEADS).requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for parameter in attention.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.5)
    return attention


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(attention: Attention, x_BLD: Tensor, memory_BMD: Tensor, visible_BLM: Tensor) -> Tensor:
    """Softmax over the keys that a query sees, head by head; no positions."""
    queries, keys, values = attention.q(x_BLD), attention.k(memory_BMD), attention.v(memory_BMD)
    mixed = torch.zeros_like(x_BLD)
    for sequence, query, head in np.ndindex(x_BLD.shape[0], x_BLD.shape[1], HEADS):
        part = slice(head * WIDTH, (head + 1) * WIDTH)
        seen = [key for key in range(memory_BMD.shape[1]) if visible_BLM[sequence, query, key]]
        scores = [float(queries[sequence, query, part] @ keys[sequence, key, part]) / math.sqrt(WIDTH) for key in seen]
        powers = [math.exp(score) for score in scores]
        for key, power in zip(seen, powers, strict=True):
            mixed[sequence, query, part] += power / sum(powers) * values[sequence, key, part]
    result: Tensor = attention.out(mixed)
    return result


def room(batch_size: int, num_positions: int) -> KeyValueCache:
    """An empty cache in which nothing may be read before it was written."""
    keys, values = torch.full((2, batch_size, HEADS, num_positions, WIDTH), torch.nan)
    return KeyValueCache(keys, values)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", [None, [5, 2]])
def test_self_attention_is_the_sum_over_visible_keys(causal: bool, lengths: list[int] | None) -> None:
    attention, x_BLD = make_attention(), normal(2, 5, DIM)
    real_BM = None if lengths is None else real_up_to(lengths, 5)
    visible = torch.ones(2, 5, 5, dtype=torch.bool)
    if causal:
        visible = visible.tril()
    if real_BM is not None:
        visible = visible & real_BM[:, None]
    found = attention(x_BLD, PLAIN, causal=causal, keys_real_BM=real_BM)
    torch.testing.assert_close(found, by_hand(attention, x_BLD, x_BLD, visible), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing_for_the_others(kind: str, causal: bool) -> None:
    attention, positions = make_attention(), make_positions(kind, HEADS)
    short_BLD = normal(2, 3, DIM)
    padded_BLD = torch.cat([short_BLD, normal(2, 2, DIM, seed=2)], dim=1)
    alone = attention(short_BLD, positions, causal=causal)
    beside = attention(padded_BLD, positions, causal=causal, keys_real_BM=real_up_to([3, 3], 5))
    torch.testing.assert_close(beside[:, :3], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("parts", [[6], [1, 1, 1, 1, 1, 1], [3, 1, 1, 1], [2, 3, 1], [1, 5]])
def test_a_cache_filled_in_any_parts_gives_the_same_as_the_whole(kind: str, parts: list[int]) -> None:
    attention, positions, x_BLD, cache = make_attention(), make_positions(kind, HEADS), normal(2, 6, DIM), room(2, 9)
    found = torch.cat([attention(part, positions, causal=True, cache=cache) for part in x_BLD.split(parts, dim=1)], dim=1)
    torch.testing.assert_close(found, attention(x_BLD, positions, causal=True), rtol=1e-4, atol=1e-5)
    assert cache.length == 6


def test_a_cache_that_is_set_back_forgets_what_came_later() -> None:
    attention, x_BLD, cache = make_attention(), normal(1, 4, DIM), room(1, 4)
    first = attention(x_BLD[:, :2], PLAIN, causal=True, cache=cache)
    attention(normal(1, 2, DIM, seed=9), PLAIN, causal=True, cache=cache)
    cache.length = 2
    second = attention(x_BLD[:, 2:], PLAIN, causal=True, cache=cache)
    torch.testing.assert_close(torch.cat([first, second], dim=1), attention(x_BLD, PLAIN, causal=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [None, [4, 1]])
def test_cross_attention_sees_the_real_part_of_the_memory(lengths: list[int] | None) -> None:
    attention, x_BLD, memory_BMD = make_attention(), normal(2, 3, DIM), normal(2, 4, DIM, seed=2)
    real_BM = None if lengths is None else real_up_to(lengths, 4)
    visible = torch.ones(2, 3, 4, dtype=torch.bool) if real_BM is None else real_BM[:, None].expand(2, 3, 4)
    found = attention.cross(x_BLD, attention.remember(memory_BMD), real_BM)
    torch.testing.assert_close(found, by_hand(attention, x_BLD, memory_BMD, visible), rtol=1e-4, atol=1e-5)
