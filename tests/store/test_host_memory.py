"""Host memory gives the bytes of the expert that was asked for, holds no more than its size, and reads only what it lacks."""

import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moeprof.moe.experts import run_experts
from moeprof.moe.kernels.loop import loop
from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import make_eviction
from moeprof.policies.offloading.planner import HIGH
from moeprof.records.errors import MoeprofError
from moeprof.store.buffered import BufferedStore
from moeprof.store.host_memory import CachedTier, HostMemory, ReadAhead
from moeprof.store.ledger import Ledger
from moeprof.store.tier import Tier, TierName

from .shelves import (
    ENTRY_BYTES,
    LAYERS,
    LAYOUT,
    Failing,
    Watched,
    bytes_read,
    entry_of,
    in_memory,
    on_disk,
    own_disk,
    read_from,
    steps,
    two_lines,
    weights_of,
)
from .test_buffered import GELU, outputs, rows_of

KEYS = [(layer, expert) for layer in LAYERS for expert in range(4)]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_disk(tmp_path, monkeypatch)


def cached(entries: int, slower: Tier) -> CachedTier:
    """A tier behind host memory for some entries."""
    return HostMemory(entries * ENTRY_BYTES).before(HIGH, slower)


def test_memory_in_front_of_a_file_gives_every_record_byte_for_byte(disk: Path) -> None:
    tier = cached(3, on_disk(4))
    for layer, expert in random.Random(2).choices(KEYS, k=60):
        assert read_from(tier, layer, expert) == entry_of(layer, expert, 4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([1, 2, 3])), max_size=40), st.integers(3, 9))
def test_memory_in_front_holds_entries_of_any_size_and_no_more_than_fit(
    asked: list[tuple[tuple[str, int], int]], entries: int
) -> None:
    """Entries of one precision have 1 page, those of another one 2, and so on."""
    memory = HostMemory(entries * ENTRY_BYTES)
    tiers = {pages: memory.before(f"int{pages}", Numbered()) for pages in (1, 2, 3)}
    for key, pages in asked:
        into_B = torch.zeros(pages * ENTRY_BYTES, dtype=torch.uint8)
        tiers[pages].read(*key, into_B)
        assert set(into_B.tolist()) == {KEYS.index(key)}
        kept = [len(entry_B) for shelf in memory.shelves for entry_B in shelf.values()]
        spare = [len(entry_B) for bodies in memory.spare.values() for entry_B in bodies]
        assert memory.held_bytes == sum(kept)
        assert sum(kept) + sum(spare) <= entries * ENTRY_BYTES


class Numbered:
    """A tier whose entries are full of the number of their expert."""

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        into_B.fill_(KEYS.index((layer, expert)))
        return "file"


def test_layers_in_a_cycle_keep_the_first_ones_and_a_window_of_the_next() -> None:
    """4 layers of 2 experts, memory for 2 layers: LRU misses all, and MIN 25 of 40."""
    layers = ["0", "1", "2", "3"]
    memory, least_recent = HostMemory(4 * ENTRY_BYTES, layers), HostMemory(4 * ENTRY_BYTES)
    found: dict[int, list[str]] = {}
    for whole in (memory, least_recent):
        tier = whole.before(HIGH, Constant())
        for _ in range(5):
            for index, layer in enumerate(layers):
                whole.begin(index if whole is memory else 0)
                found.setdefault(id(whole), []).extend(tier.read(layer, expert, LAYOUT.slab(1, "cpu")[0]) for expert in (0, 1))
        assert whole.held_bytes == 4 * ENTRY_BYTES
    assert found[id(least_recent)] == ["file"] * 40
    accesses = [layer * 2 + expert for _ in range(5) for layer in range(4) for expert in (0, 1)]
    best = Cache(4, make_eviction("min"), future=accesses)
    fewest = sum(not best.batch([expert])[0].hit for expert in accesses)
    assert fewest <= found[id(memory)].count("file") <= 1.1 * fewest


class Constant:
    """A file of zeros."""

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        return "file"


def test_what_is_read_ahead_is_then_read_from_memory() -> None:
    slower = Watched(in_memory(4))
    tier = cached(3, slower)
    into_B = LAYOUT.slab(1, "cpu").fill_(7)[0]
    ReadAhead(tier).read("1", 2, into_B)
    assert set(into_B.tolist()) == {7}
    assert read_from(tier, "1", 2) == entry_of("1", 2, 4)
    assert slower.read_keys == [("1", 2)]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(KEYS), max_size=12), st.lists(st.sampled_from(KEYS), max_size=12), st.integers(1, 6))
def test_kept_memory_has_the_same_entries_in_the_same_order_after_the_block(
    before: list[tuple[str, int]], inside: list[tuple[str, int]], entries: int
) -> None:
    tier = cached(entries, in_memory(4))
    for key in before:
        read_from(tier, *key)
    order = [list(shelf) for shelf in tier.memory.shelves]
    with tier.memory.kept():
        for key in inside:
            read_from(tier, *key)
    assert [list(shelf) for shelf in tier.memory.shelves] == order
    assert tier.memory.held_bytes == sum(map(len, order)) * ENTRY_BYTES
    for key in dict.fromkeys(before):
        assert read_from(tier, *key) == entry_of(*key, 4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(KEYS), max_size=40), st.integers(1, 9))
def test_the_slower_tier_is_asked_for_the_misses_of_lru(asked: list[tuple[str, int]], entries: int) -> None:
    slower, alone = Watched(in_memory(4)), Cache(entries, make_eviction("lru"))
    tier = cached(entries, slower)
    missed = []
    for key in asked:
        (access,) = alone.batch([KEYS.index(key)])
        missed += [] if access.hit else [key]
        assert read_from(tier, *key) == entry_of(*key, 4)
    assert slower.read_keys == missed


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(KEYS), max_size=30), st.integers(1, 9), st.sets(st.integers(0, 20), max_size=8))
def test_a_slower_tier_that_breaks_down_is_never_believed_to_have_delivered(
    asked: list[tuple[str, int]], entries: int, breakdowns: set[int]
) -> None:
    """What is there is what was delivered and has not left since; all else is read again."""
    slower = Failing(in_memory(4), breakdowns)
    tier = cached(entries, slower)
    there: OrderedDict[tuple[str, int], None] = OrderedDict()
    for key in asked:
        before, known = slower.reads, key in there
        if known:
            there.move_to_end(key)
        elif len(there) == entries:
            there.popitem(last=False)
        if not known and before in breakdowns:
            with pytest.raises(OSError, match="Input/output error"):
                read_from(tier, *key)
        else:
            assert read_from(tier, *key) == entry_of(*key, 4)
            there[key] = None
        assert slower.reads - before == (not known)


def test_what_could_not_be_read_is_read_at_the_next_occasion_and_then_kept() -> None:
    slower = Failing(in_memory(4), {0, 1})
    tier = cached(1, slower)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            read_from(tier, "3", 2)
    assert [read_from(tier, "3", 2) for _ in range(3)] == [entry_of("3", 2, 4)] * 3
    assert slower.reads == 3


@pytest.mark.parametrize("policy", ["inactive-first+lifo", "lru"])
def test_slots_before_memory_before_a_file_compute_what_resident_experts_compute(disk: Path, policy: str) -> None:
    """Three tiers: the slots of two layers, one memory for both, one file; every tier is asked for the misses before it."""
    file = Watched(on_disk(6))
    memory = Watched(cached(5, file))
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
    tier = cached(2, slower)
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
