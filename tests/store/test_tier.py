"""Every tier gives the bytes of the expert that was asked for, and a tier of two asks the slower one no more than it must."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.moe.experts import make_ffn, run_experts
from moeprof.moe.kernels.loop import loop
from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import EVICTION, make_eviction
from moeprof.records.errors import MoeprofError
from moeprof.records.ffn.mlp import MLP
from moeprof.store.buffered import BufferedStore
from moeprof.store.ledger import Ledger
from moeprof.store.tier import CachedTier, FillTier

from .shelves import (
    ENTRY_BYTES,
    LAYERS,
    LAYOUT,
    Failing,
    Watched,
    bytes_read,
    entry_of,
    filling,
    in_memory,
    on_disk,
    own_disk,
    read_from,
    steps,
    two_lines,
    weights_of,
)
from .test_buffered import GELU, outputs, rows_of

ONLINE = [name for name, policy in EVICTION.items() if not policy.needs_future]
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


def test_memory_in_front_of_a_file_gives_every_record_byte_for_byte(disk: Path) -> None:
    tier = CachedTier(LAYOUT, 3, make_eviction("lru"), on_disk(4))
    for layer, expert in random.Random(2).choices(KEYS, k=60):
        assert read_from(tier, layer, expert) == entry_of(layer, expert, 4)


def test_memory_in_front_holds_its_slots_and_no_more() -> None:
    tier = CachedTier(LAYOUT, 3, make_eviction("lru"), in_memory(4))
    for layer, expert in random.Random(3).choices(KEYS, k=60):
        read_from(tier, layer, expert)
        assert len(tier.slots) + len(tier.free) == 3
    assert tier.slab_SB.nbytes == 3 * ENTRY_BYTES


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(KEYS), max_size=40), st.integers(1, 9), st.sampled_from(ONLINE))
def test_the_slower_tier_is_asked_for_the_misses_of_the_policy(asked: list[tuple[str, int]], slots: int, policy: str) -> None:
    """The policy by itself, over the same keys."""
    slower, alone = Watched(in_memory(4)), Cache(slots, make_eviction(policy))
    tier = CachedTier(LAYOUT, slots, make_eviction(policy), slower)
    numbers: dict[tuple[str, int], int] = {}
    missed = []
    for key in asked:
        (access,) = alone.batch([numbers.setdefault(key, len(numbers))])
        missed += [] if access.hit else [key]
        assert read_from(tier, *key) == entry_of(*key, 4)
    assert slower.read_keys == missed


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(KEYS), max_size=30),
    st.integers(1, 9),
    st.sampled_from(ONLINE),
    st.sets(st.integers(0, 20), max_size=8),
)
def test_a_slower_tier_that_breaks_down_is_never_believed_to_have_delivered(
    asked: list[tuple[str, int]], slots: int, policy: str, breakdowns: set[int]
) -> None:
    """What is there is what was delivered and has not left since; all else is read again."""
    slower = Failing(in_memory(4), breakdowns)
    tier, alone = CachedTier(LAYOUT, slots, make_eviction(policy), slower), Cache(slots, make_eviction(policy))
    numbers: dict[tuple[str, int], int] = {}
    there: set[int] = set()
    for key in asked:
        number, before = numbers.setdefault(key, len(numbers)), slower.reads
        (access,) = alone.batch([number])
        there -= set(access.victims)
        fails = number not in there and before in breakdowns
        if fails:
            with pytest.raises(OSError, match="Input/output error"):
                read_from(tier, *key)
        else:
            assert read_from(tier, *key) == entry_of(*key, 4)
        assert slower.reads - before == (number not in there)
        there |= set() if fails else {number}


def test_what_could_not_be_read_is_read_at_the_next_occasion_and_then_kept() -> None:
    slower = Failing(in_memory(4), {0, 1})
    tier = CachedTier(LAYOUT, 1, make_eviction("lru"), slower)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            read_from(tier, "3", 2)
    assert [read_from(tier, "3", 2) for _ in range(3)] == [entry_of("3", 2, 4)] * 3
    assert slower.reads == 3


@pytest.mark.parametrize("policy", ["inactive-first+lifo", "lru"])
def test_slots_before_memory_before_a_file_compute_what_resident_experts_compute(disk: Path, policy: str) -> None:
    """Three tiers: the slots of two layers, one memory for both, one file; every tier is asked for the misses before it."""
    file = Watched(on_disk(6))
    memory = Watched(CachedTier(LAYOUT, 5, make_eviction("lru"), file))
    ledger = Ledger(memory)
    stores = {layer: BufferedStore(layer, range(6), 2, make_eviction(policy), LAYOUT, ledger) for layer in LAYERS}
    alone = {layer: Cache(2, make_eviction(policy)) for layer in LAYERS}
    read_from(file.behind, "1", 0)  # whatever has to be loaded for the first read
    misses = 0
    for number, loads in enumerate(steps(5, 6, 60)):
        for layer, buffered in stores.items():
            inputs = rows_of(loads, number)
            torch.testing.assert_close(outputs(buffered, inputs), loop(inputs, weights_of(layer, 6), GELU))
            active = [expert for expert, load in enumerate(loads) if load]
            misses += sum(not access.hit for access in alone[layer].batch(active))
    assert ledger.thread is not None
    moved_bytes = bytes_read(ledger.thread.native_id)
    assert len(memory.read_keys) == misses > 20
    numbers = [LAYERS.index(layer) * 6 + expert for layer, expert in memory.read_keys]
    behind, missed = Cache(5, make_eviction("lru")), []
    for key, number in zip(memory.read_keys, numbers, strict=True):
        missed += [] if behind.batch([number])[0].hit else [key]
    assert file.read_keys == missed
    assert len(missed) < misses
    assert moved_bytes == pytest.approx(len(missed) * ENTRY_BYTES, rel=0.05)
    ledger.close()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sets(st.integers(0, 30), max_size=5))
def test_no_step_is_wrong_whichever_reads_of_the_slowest_tier_break_down(seed: int, slots: int, breakdowns: set[int]) -> None:
    """A step breaks off with an error of its own if a read broke down in it, and is right if none did."""
    slower = Failing(in_memory(5), breakdowns)
    tier = CachedTier(LAYOUT, 2, make_eviction("lru"), slower)
    buffered = BufferedStore("3", range(5), slots, make_eviction("inactive-first+lifo"), LAYOUT, Ledger(tier))
    for number, loads in enumerate(steps(seed, 5, 8)):
        inputs, before = rows_of(loads, number), slower.reads
        buffered.expect(inputs.offsets)
        try:
            found = run_experts(loop, inputs, buffered, GELU)
        except MoeprofError as error:
            told = error
            buffered.reset()  # what is still on its way belongs to this step
        else:
            told = None
            torch.testing.assert_close(found, loop(inputs, weights_of("3", 5), GELU))
        assert (told is not None) == any(before <= one < slower.reads for one in breakdowns)
        assert told is None or two_lines(told)
    buffered.ledger.close()


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
