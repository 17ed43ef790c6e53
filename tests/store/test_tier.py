"""Every tier gives the bytes of the expert that was asked for."""

import random
from pathlib import Path

import pytest
import torch

from moeprof.moe.experts import make_ffn, run_experts
from moeprof.moe.kernels.loop import loop
from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.errors import MoeprofError
from moeprof.records.ffn.mlp import MLP
from moeprof.store.buffered import BufferedStore
from moeprof.store.ledger import Ledger
from moeprof.store.tier import FillTier

from .shelves import (
    LAYERS,
    LAYOUT,
    Failing,
    entry_of,
    filling,
    in_memory,
    on_disk,
    own_disk,
    read_from,
    weights_of,
)
from .test_buffered import outputs, rows_of

KEYS = [(layer, expert) for layer in LAYERS for expert in range(4)]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_disk(tmp_path, monkeypatch)


def test_memory_gives_every_record_byte_for_byte() -> None:
    tier = in_memory(4)
    for layer, expert in KEYS:
        assert read_from(tier, layer, expert) == entry_of(layer, expert, 4)


def test_a_file_gives_every_record_byte_for_byte(disk: Path) -> None:
    tier = on_disk(4)
    for layer, expert in random.Random(1).sample(KEYS, len(KEYS)):
        assert read_from(tier, layer, expert) == entry_of(layer, expert, 4)


def test_the_step_after_one_whose_tier_broke_down_is_right() -> None:
    slower = Failing(in_memory(4), {2})
    buffered = BufferedStore("1", range(4), 2, make_eviction("inactive-first+lifo"), LAYOUT, Ledger(slower))
    inputs, activation = rows_of([2, 1, 3, 2]), make_ffn(MLP, "gelu")
    expected = loop(inputs, weights_of("1", 4), activation)
    with pytest.raises(MoeprofError, match=r"expert 2 of layer 1 could not be loaded: input/output error"):
        outputs(buffered, inputs)
    for _ in range(3):
        buffered.expect(inputs.offsets)
        torch.testing.assert_close(run_experts(loop, inputs, buffered, activation), expected)
    buffered.ledger.close()


def test_a_function_that_writes_weights_is_a_tier() -> None:
    tier, slab_1B = FillTier({"1": LAYOUT}, filling(4)), LAYOUT.slab(1, "cpu")
    tier.read("1", 2, slab_1B[0])
    assert slab_1B.numpy().tobytes() == entry_of("1", 2, 4)
