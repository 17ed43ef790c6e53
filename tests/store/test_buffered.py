"""A buffered layer computes what the resident one computes, holds no more than its slots, and does what its policy says."""

import random
import time
from collections.abc import Callable
from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moeprof.instrument.clock import wall_clock
from moeprof.instrument.probe import Probe, observed_by
from moeprof.moe.experts import ExpertRows, make_ffn, run_experts, wave_rows
from moeprof.moe.kernels.grouped_mm import grouped_mm
from moeprof.moe.kernels.loop import loop
from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import EVICTION, make_eviction
from moeprof.records.ffn.gated import GATED
from moeprof.records.ffn.mlp import MLP
from moeprof.records.traces.expert_loads import ExpertUse, LayerLoads
from moeprof.store.buffered import BufferedStore
from moeprof.store.entry import EntryLayout
from moeprof.store.ledger import Ledger
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import HostTier
from tests.moe import plain

from .shelves import DIM, FFN_DIM, Watched, in_memory, on_disk, steps, store, weights_of

GELU = make_ffn(MLP, "gelu")
ONLINE = [name for name, policy in EVICTION.items() if not policy.needs_future]
POLICIES = [*ONLINE, *(f"inactive-first+{name}" for name in ("lifo", "fifo", "lru"))]


class Book(Probe):
    """Keeps what every step did."""

    def __init__(self) -> None:
        self.visits: list[LayerLoads] = []

    def visited(self, layer: str, visit: LayerLoads) -> None:
        self.visits.append(visit)


class Ordered(Probe):
    """Needs an order of the work that does not depend on timing."""

    fixed_order = True


def rows_of(loads: list[int], seed: int = 0, device: str = "cpu") -> ExpertRows:
    bounds = [0, *accumulate(loads)]
    return ExpertRows(torch.randn(bounds[-1], DIM, generator=torch.Generator().manual_seed(seed)).to(device), bounds)


def outputs(buffered: BufferedStore, inputs: ExpertRows, kernel: object = loop) -> Tensor:
    buffered.expect(inputs.offsets)
    return run_experts(kernel, inputs, buffered, GELU)  # type: ignore[arg-type]


def in_groups(weights: ExpertWeights, inputs: ExpertRows, groups: list[list[int]]) -> Tensor:
    """The resident weights with the same rows in the same groups."""
    found = torch.empty_like(inputs.rows_RD)
    for experts in groups:
        part = wave_rows(experts, inputs.bounds)
        own = weights.map(lambda whole, experts=experts: whole[experts])
        pieces = torch.split(loop(part.rows(inputs), own, GELU), part.lengths)
        for (first, last), rows in zip(part.ranges, pieces, strict=True):
            found[first:last] = rows
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from(POLICIES), st.data())
def test_outputs_are_those_of_the_resident_experts_whatever_the_policy_the_slots_and_the_steps(
    device: str, seed: int, num_experts: int, policy: str, data: st.DataObject
) -> None:
    slots = data.draw(st.integers(1, num_experts))
    dawdling = Watched(in_memory(num_experts, device=device), dawdle=lambda: time.sleep(random.choice([0, 0, 1e-4])))
    buffered, weights = store(dawdling, num_experts, slots, policy, device=device), weights_of("1", num_experts, device=device)
    for number, loads in enumerate(steps(seed, num_experts, 4)):
        inputs = rows_of(loads, number, device=device)
        torch.testing.assert_close(outputs(buffered, inputs), loop(inputs, weights, GELU))
    buffered.ledger.close()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 9), st.data())
def test_outputs_are_the_same_bit_for_bit_in_the_same_row_groups(
    device: str, seed: int, num_experts: int, data: st.DataObject
) -> None:
    """Whichever load comes first: which experts are computed together follows from the routing alone."""
    slots = data.draw(st.integers(1, num_experts))
    dawdling = Watched(in_memory(num_experts, device=device), dawdle=lambda: time.sleep(random.choice([0, 0, 1e-4])))
    buffered, weights = store(dawdling, num_experts, slots, device=device), weights_of("1", num_experts, device=device)
    for number, loads in enumerate(steps(seed, num_experts, 4)):
        inputs = rows_of(loads, number, device=device)
        buffered.expect(inputs.offsets)
        plan = buffered.plan
        whole = plan is None or (slots == num_experts and not plan.loads)
        groups = [] if plan is None else [*plan.groups(), *([expert] for expert in plan.loads)]
        groups = [sorted(group, key=lambda expert: plan.slots[expert]) for group in groups] if plan else groups
        found = run_experts(loop, inputs, buffered, GELU)
        assert torch.equal(found, loop(inputs, weights, GELU) if whole else in_groups(weights, inputs, groups))
    buffered.ledger.close()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), num_experts=st.integers(1, 6), bias=st.booleans(), data=st.data())
def test_gated_experts_in_slots_compute_what_plain_loops_do(
    device: str, seed: int, num_experts: int, bias: bool, data: st.DataObject
) -> None:
    layout = EntryLayout(GATED.shapes(DIM, FFN_DIM, bias=bias), torch.float32)
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(num_experts, *shape, generator=generator) for name, shape in layout.tensors.items()}

    def fill(_: str, expert: int, into: ExpertWeights) -> None:
        for name, view in into.items():
            view.copy_(weights[name][expert])

    tier = HostTier.filled(layout, [("1", expert) for expert in range(num_experts)], fill, pinned=device == "cuda")
    slots = data.draw(st.integers(1, num_experts))
    buffered = BufferedStore("1", range(num_experts), slots, make_eviction("lru"), layout, Ledger(tier, device))
    stacked = {name: whole.double().numpy() for name, whole in weights.items()}
    for loads in steps(seed, num_experts, 3):
        inputs = rows_of(loads, seed, device=device)
        buffered.expect(inputs.offsets)
        found_RD = run_experts(loop, inputs, buffered, make_ffn(GATED, "silu"))
        expected = [
            plain.ffn(row_D, plain.of_expert(stacked, expert), "silu")
            for expert, (first, last) in enumerate(pairwise(inputs.bounds))
            for row_D in inputs.rows_RD[first:last].cpu().double().numpy()
        ]
        torch.testing.assert_close(
            found_RD.cpu(), torch.tensor(np.array(expected).reshape(-1, DIM)).float(), rtol=1e-3, atol=1e-3
        )
    buffered.ledger.close()


def test_torchs_grouped_product_takes_slots_as_they_lie(device: str) -> None:
    buffered, weights = store(in_memory(6, device=device), 6, 4, device=device), weights_of("1", 6, device=device)
    for number, loads in enumerate(steps(3, 6, 6)):
        inputs = rows_of(loads, number, device=device)
        torch.testing.assert_close(outputs(buffered, inputs, grouped_mm), loop(inputs, weights, GELU))


def test_with_a_slot_for_every_expert_rows_are_handed_on_untouched_once_all_are_there(device: str) -> None:
    buffered = store(in_memory(4, device=device), 4, 4, device=device)
    inputs = rows_of([1, 2, 0, 3], device=device)
    outputs(buffered, inputs)
    outputs(buffered, rows_of([1, 1, 1, 1], device=device))
    buffered.expect(inputs.offsets)
    assert [wave.experts for wave in buffered.waves()] == [None]
    assert torch.equal(buffered.weights["w1"], weights_of("1", 4, device=device)["w1"])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from(POLICIES), st.data())
def test_hits_and_victims_are_the_policys_own_and_no_more_is_read_than_misses(
    device: str, seed: int, num_experts: int, policy: str, data: st.DataObject
) -> None:
    """The policy by itself, over the same active experts in the order of their ids."""
    slots = data.draw(st.integers(1, num_experts))
    watched, book = Watched(in_memory(num_experts, device=device)), Book()
    buffered, alone = store(watched, num_experts, slots, policy, device=device), Cache(slots, make_eviction(policy))
    expected: list[tuple[int, bool, int]] = []
    for loads in steps(seed, num_experts, 5):
        with observed_by(book):
            outputs(buffered, rows_of(loads, device=device))
        accesses = alone.batch([expert for expert, load in enumerate(loads) if load])
        expected += [(access.expert, access.hit, access.victim) for access in accesses]
    uses = [use for visit in book.visits for use in visit.uses]
    assert [(use.expert, use.hit, use.victim) for use in uses] == expected
    assert sorted(expert for _, expert in watched.read_keys) == sorted(use.expert for use in uses if not use.hit)
    buffered.ledger.close()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 12), st.data())
def test_no_active_expert_leaves_while_an_inactive_one_is_there(
    device: str, seed: int, num_experts: int, data: st.DataObject
) -> None:
    slots = data.draw(st.integers(1, num_experts))
    book, buffered, resident = (
        Book(),
        store(in_memory(num_experts, device=device), num_experts, slots, device=device),
        set[int](),
    )
    for loads in steps(seed, num_experts, 5):
        with observed_by(book):
            outputs(buffered, rows_of(loads, device=device))
        active = {expert for expert, load in enumerate(loads) if load}
        for use in book.visits[-1].uses:
            assert use.hit == (use.expert in resident)
            if use.victim >= 0:
                assert use.victim not in active or resident <= active
                resident.remove(use.victim)
            resident.add(use.expert)
            assert len(resident) <= slots
    buffered.ledger.close()


@pytest.mark.parametrize(
    ("policy", "expected"), [("fifo", 1.0), ("lru", 1.0), ("lfu", 1.0), ("lifo", 2 / 3), ("mru", 1 / 2), ("batch-aware", 1 / 2)]
)
def test_the_papers_example_misses_as_the_paper_says(device: str, policy: str, expected: float) -> None:
    """Section V: experts 1, 2 and 3 of four in every step, two slots; after the cold first step."""
    buffered, book = store(in_memory(4, device=device), 4, 2, policy, device=device), Book()
    for _ in range(13):
        with observed_by(book):
            outputs(buffered, rows_of([0, 1, 1, 1], device=device))
    uses = [use for visit in book.visits[1:] for use in visit.uses]
    assert sum(not use.hit for use in uses) / len(uses) == pytest.approx(expected)


def test_a_step_that_broke_off_leaves_nothing_wrong_behind(device: str) -> None:
    """The loads of a step whose kernel failed are in slots that nobody may believe in."""
    num_experts, weights = 6, weights_of("1", 6, device=device)
    buffered = store(Watched(in_memory(6, device=device), dawdle=lambda: time.sleep(1e-3)), num_experts, 3, device=device)

    def failing(*_: object) -> Tensor:
        raise RuntimeError("a kernel failed")

    for loads in steps(1, num_experts, 6):
        inputs = rows_of(loads, device=device)
        buffered.expect(inputs.offsets)
        with pytest.raises(RuntimeError, match="a kernel failed"):
            run_experts(failing, inputs, buffered, GELU)
        assert torch.allclose(outputs(buffered, inputs), loop(inputs, weights, GELU), atol=1e-5)


def test_loads_that_need_no_ones_slot_are_on_their_way_before_the_experts_that_are_there_are_computed() -> None:
    """Four slots, two of them with inactive experts: both misses are read while nothing has been asked of the store."""
    watched = Watched(in_memory(6))
    buffered = store(watched, 6, 4)
    outputs(buffered, rows_of([1, 1, 1, 1, 0, 0]))
    watched.read_keys.clear()
    buffered.expect(rows_of([1, 1, 0, 0, 1, 1]).offsets)
    assert buffered.plan is not None
    for load in buffered.plan.loads.values():
        assert load.finished.wait(5)
    assert watched.read_keys == [("1", 4), ("1", 5)]
    assert list(buffered.plan.groups()) == [[0], [1]]


def test_those_whose_slots_are_wanted_have_their_turn_first() -> None:
    """Experts 0 to 3 are there and active, and so are 4 and 5: LIFO gives 4 the slot of 3, and 5 that of 4."""
    buffered = store(in_memory(6), 6, 4)
    outputs(buffered, rows_of([1, 1, 1, 1, 0, 0]))
    buffered.expect(rows_of([1, 1, 1, 1, 1, 1]).offsets)
    assert buffered.plan is not None
    assert buffered.plan.behind == {3: 4, 4: 5}
    assert list(buffered.plan.groups()) == [[3, 0], [1, 2]]
    first = next(iter(buffered.waves()))
    assert [expert for expert in first.experts or () if expert >= 0] == [0, 3]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), num_experts=st.integers(2, 8), data=st.data())
def test_a_probe_that_needs_a_fixed_order_sees_the_same_waves_from_a_slow_tier_and_from_a_fast_one(
    seed: int, num_experts: int, data: st.DataObject
) -> None:
    slots = data.draw(st.integers(1, num_experts))
    slow = store(Watched(in_memory(num_experts), dawdle=lambda: time.sleep(1e-3)), num_experts, slots)
    fast = store(in_memory(num_experts), num_experts, slots)
    for loads in steps(seed, num_experts, 3):
        assert ordered_waves(slow, loads, lambda: None) == ordered_waves(fast, loads, lambda: time.sleep(1e-4))


def ordered_waves(buffered: BufferedStore, loads: list[int], compute: Callable[[], object]) -> list[tuple[int, ...] | None]:
    """The experts of every wave of a step under a probe that needs a fixed order."""
    found = []
    with observed_by(Ordered()):
        buffered.expect(rows_of(loads).offsets)
        for wave in buffered.waves():
            found.append(None if wave.experts is None else tuple(wave.experts))
            compute()
    return found


@pytest.mark.parametrize("slots", [0, 5])
def test_there_is_at_least_one_slot_and_no_more_than_experts(slots: int) -> None:
    with pytest.raises(ValueError, match=f"{slots} slots for 4 experts"):
        store(in_memory(4), 4, slots)


def test_experts_that_are_held_in_any_order_are_read_by_their_logical_numbers(device: str) -> None:
    """As a placement may have it; the policy sees them in the order of these numbers."""
    held, weights, book = [5, 0, 3], weights_of("1", 6, device=device), Book()
    buffered = store(in_memory(6, device=device), 6, 2, held=held, device=device)
    inputs = rows_of([2, 1, 3], device=device)
    with observed_by(book):
        found = outputs(buffered, inputs)
    torch.testing.assert_close(found, loop(inputs, weights.map(lambda whole: whole[held]), GELU))
    assert [use[:3] for use in book.visits[0].uses] == [(0, False, -1), (3, False, -1), (5, False, 3)]


def test_a_real_file_serves_the_same_weights() -> None:
    buffered, weights = store(on_disk(5), 5, 2), weights_of("1", 5)
    for number, loads in enumerate(steps(7, 5, 5)):
        inputs = rows_of(loads, number)
        torch.testing.assert_close(outputs(buffered, inputs), loop(inputs, weights, GELU))


def test_a_visit_tells_what_was_moved_and_when(device: str) -> None:
    buffered, book = store(in_memory(4, device=device), 4, 2, device=device), Book()
    for loads in ([1, 0, 1, 0], [1, 0, 1, 1]):
        with observed_by(book):
            outputs(buffered, rows_of(loads, device=device))
    assert [use.num_bytes for use in book.visits[1].uses] == [0, 0, buffered.layout.entry_bytes]
    assert book.visits[1].uses[0] == ExpertUse(0, True, -1, 0, 0, 0)
    loaded = book.visits[1].uses[2]
    assert 0 < loaded.start_ns < loaded.end_ns
    assert 0 <= book.visits[1].stall_ns <= book.visits[1].span_ns


@pytest.mark.parametrize(("slots", "saved_gib"), [(16, 0.0), (10, 2.2507), (5, 4.126), (1, 5.6267)])
def test_the_papers_savings_by_the_stores_own_account_at_the_papers_shape(slots: int, saved_gib: float) -> None:
    """Table 5.5: 16 experts a device in each of the decoder's 6 MoE layers, bytes of fp16, on tensors without memory."""
    layout = EntryLayout(MLP.shapes(2048, 8192, bias=True), torch.float16)
    assert layout.entry_bytes == layout.expert_bytes == 33_564_672 * 2
    with torch.device("meta"):
        fakes = [
            BufferedStore(f"dec.{layer}", range(16), slots, make_eviction("lifo"), layout, Fake())  # type: ignore[arg-type]
            for layer in (3, 7, 11, 15, 19, 23)
        ]
    assert all(fake.slab_SB.untyped_storage().nbytes() == fake.resident_bytes for fake in fakes)
    saved_bytes = 16 * 6 * layout.entry_bytes - sum(fake.resident_bytes for fake in fakes)
    assert saved_bytes / 2**30 == pytest.approx(saved_gib, abs=0.01)


class Fake:
    """A ledger for stores that move nothing."""

    stream, device, clock = None, "meta", wall_clock
