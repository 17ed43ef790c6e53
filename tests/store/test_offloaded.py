"""Layers under an offloading system compute what resident ones compute, at the precisions and from the slots that the planner names."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moeprof.instrument.probe import Probe, observed_by
from moeprof.moe.experts import ExpertRows, make_ffn, run_experts
from moeprof.moe.kernels.loop import loop
from moeprof.policies.offloading.decisions import OffloadingDecisions
from moeprof.policies.offloading.demands import Demands, in_high
from moeprof.policies.offloading.foresight import Foresight, LastStep, Shuffled, WholeLayers
from moeprof.policies.offloading.planner import HIGH, SKIP, Demand, Planner
from moeprof.policies.offloading.priority import ExpertUnit, Lru
from moeprof.records.errors import MoeprofError
from moeprof.records.ffn.mlp import MLP
from moeprof.records.traces.expert_loads import LayerLoads
from moeprof.store.host_memory import HostMemory
from moeprof.store.ledger import Ledger
from moeprof.store.offload import Form, Offload
from moeprof.store.offloaded import OffloadedStore
from moeprof.store.resident import ExpertWeights, ResidentStore
from moeprof.store.tier import HostTier, Tier

from .shelves import DIM, LAYERS, LAYOUT, Failing, Watched, bytes_read, filling, in_memory, on_disk, own_disk, steps, weights_of

GELU = make_ffn(MLP, "gelu")
EXPERTS = 6


def halved(packed: ExpertWeights, into: ExpertWeights) -> None:
    """The form of this test's low precision: float16."""
    for name, view in into.items():
        view.copy_(packed[name])


def half_layout() -> Any:
    from moeprof.store.entry import EntryLayout

    return EntryLayout(LAYOUT.tensors, torch.float16)


def low_form(num_experts: int) -> Form:
    layout = half_layout()
    tier = HostTier.filled(
        layout, [(layer, one) for layer in LAYERS for one in range(num_experts)], filling(num_experts), pinned=False
    )
    return Form([layout] * len(LAYERS), tier, halved)


def offload(
    slots: int,
    *,
    low: int = 0,
    per_layer: bool = True,
    demands: Demands = in_high,
    foresight: Foresight | None = None,
    tier: Tier | None = None,
    memory: HostMemory | None = None,
    preload: int = 0,
) -> Offload:
    planner = Planner(len(LAYERS), {HIGH: slots} | ({"half": low} if low else {}), Lru(), per_layer=per_layer)
    high = Form([LAYOUT] * len(LAYERS), tier or in_memory(EXPERTS))
    forms = {HIGH: high} | ({"half": low_form(EXPERTS)} if low else {})
    if memory is not None:
        forms = {name: replace(form, source=memory.before(name, form.source)) for name, form in forms.items()}
    decisions = OffloadingDecisions(planner, demands, foresight)
    return Offload(LAYERS, decisions, forms, Ledger(high.source), memory=memory, preload=preload)


def step(store: OffloadedStore, loads: Sequence[int], seed: int = 0) -> tuple[Tensor, ExpertRows]:
    """One step in which expert e has `loads[e]` rows; its outputs, and the rows."""
    bounds = [0, *accumulate(loads)]
    rows = ExpertRows(torch.randn(bounds[-1], DIM, generator=torch.Generator().manual_seed(seed)), bounds)
    experts_TK = torch.tensor([[expert] for expert, count in enumerate(loads) for _ in range(count)], dtype=torch.int64).view(
        -1, 1
    )
    store.consider(rows.rows_RD, experts_TK, torch.ones(len(experts_TK), 1), len(loads))
    return run_experts(loop, rows, store, GELU), rows


def resident(weights: ExpertWeights, rows: ExpertRows) -> Tensor:
    """Every expert by itself."""
    found = torch.zeros_like(rows.rows_RD)
    for expert, (first, last) in enumerate(zip(rows.bounds, rows.bounds[1:], strict=False)):
        one = ExpertRows(rows.rows_RD[first:last], [0, last - first])
        found[first:last] = run_experts(
            loop, one, ResidentStore(weights.map(lambda whole, expert=expert: whole[expert : expert + 1])), GELU
        )
    return found


FORESIGHTS: dict[str, Callable[[], Foresight | None]] = {
    "none": lambda: None,
    "last step": lambda: LastStep(len(LAYERS)),
    "shuffled": lambda: Shuffled(LastStep(len(LAYERS)), [EXPERTS] * len(LAYERS)),
    "whole layers": lambda: WholeLayers(len(LAYERS), 1, [EXPERTS] * len(LAYERS), HIGH),
}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 7), st.booleans(), st.sampled_from(list(FORESIGHTS)))
def test_outputs_are_those_of_resident_experts_whatever_is_evicted_or_foreseen(
    seed: int, slots: int, per_layer: bool, foresight: str
) -> None:
    system = offload(slots, per_layer=per_layer, foresight=FORESIGHTS[foresight]())
    stores = [OffloadedStore(layer, system) for layer in LAYERS]
    for number, loads in enumerate(steps(seed, EXPERTS, 6)):
        store = stores[number % len(LAYERS)]
        found, rows = step(store, loads, seed + number)
        torch.testing.assert_close(found, resident(weights_of(store.layer, EXPERTS), rows), rtol=1e-4, atol=1e-5)
    system.ledger.close()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_each_expert_is_computed_at_the_precision_that_the_planner_names_and_skipped_ones_add_nothing(
    seed: int, high: int, low: int, per_layer: bool
) -> None:
    draw = random.Random(seed)

    def demands(experts_TK: Any, weights_TK: Any, num_experts: int) -> list[Demand]:
        return [Demand(int(expert), draw.choice([HIGH, "half", SKIP])) for expert in np.unique(experts_TK)]

    system = offload(high, low=low, per_layer=per_layer, demands=demands, foresight=LastStep(len(LAYERS)))
    stores = [OffloadedStore(layer, system) for layer in LAYERS]
    exact = {layer: weights_of(layer, EXPERTS) for layer in LAYERS}
    rounded = {layer: weights.map(lambda whole: whole.half().float()) for layer, weights in exact.items()}
    for number, loads in enumerate(steps(seed, EXPERTS, 8)):
        store, book = stores[number % len(LAYERS)], Book(system)
        with observed_by(book):
            found, rows = step(store, loads, seed + number)
        expected = {HIGH: resident(exact[store.layer], rows), "half": resident(rounded[store.layer], rows)}
        for expert, (first, last) in enumerate(zip(rows.bounds, rows.bounds[1:], strict=False)):
            precision = book.precisions.get(expert, SKIP)
            wanted = expected[precision][first:last] if precision else torch.zeros(last - first, DIM)
            torch.testing.assert_close(found[first:last], wanted, rtol=1e-4, atol=1e-5)
    system.ledger.close()


class Book(Probe):
    """What a store reports of a step, and at which precision the planner says that it used each expert."""

    def __init__(self, system: Offload) -> None:
        self.system, self.visits = system, list[LayerLoads]()
        self.precisions: dict[int, str] = {}
        self.plan_step = system.decisions.planner.step
        system.decisions.planner.step = self.noted  # type: ignore[method-assign]

    def noted(self, *args: Any) -> Any:
        uses = self.plan_step(*args)
        self.precisions = {use.expert: use.unit.precision for use in uses if use.unit is not None}
        self.system.decisions.planner.step = self.plan_step  # type: ignore[method-assign]
        return uses

    def visited(self, layer: str, visit: LayerLoads) -> None:
        self.visits.append(visit)


@pytest.fixture
def watched() -> Iterator[tuple[Watched, Offload]]:
    tier = Watched(in_memory(EXPERTS))
    system = offload(3, foresight=LastStep(len(LAYERS)), tier=tier)
    yield tier, system
    system.ledger.close()


def test_what_was_prefetched_is_not_read_again_and_is_reported_as_foreseen(watched: tuple[Watched, Offload]) -> None:
    tier, system = watched
    first, second = (OffloadedStore(layer, system) for layer in LAYERS)
    step(second, [1, 1, 0, 0, 0, 0])
    system.decisions.planner.clear()  # as if others had taken the slots since
    step(first, [0, 0, 1, 0, 0, 0])
    tier.read_keys.clear()
    book = Book(system)
    with observed_by(book):
        step(second, [1, 1, 0, 0, 0, 1])
    assert [(event.event, event.num_bytes) for event in book.visits[0].events[:3]] == [
        *([("foreseen", 0)] * 2),
        ("demand", LAYOUT.entry_bytes),
    ]
    assert sorted(set(tier.read_keys) - {(LAYERS[0], 2)}) in ([("3", 5)], [("3", 0), ("3", 1), ("3", 5)], [("3", 1), ("3", 5)])
    assert len(tier.read_keys) == len(set(tier.read_keys))


@pytest.mark.parametrize("preload", [0, 1])
@pytest.mark.parametrize("foresight", FORESIGHTS)
def test_movements_from_the_file_are_what_the_kernel_read_and_those_from_memory_are_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foresight: str, preload: int
) -> None:
    own_disk(tmp_path, monkeypatch)
    memory = HostMemory(4 * LAYOUT.entry_bytes, LAYERS if preload else ())
    system = offload(2, foresight=FORESIGHTS[foresight](), tier=on_disk(EXPERTS), memory=memory, preload=preload)
    stores, book = [OffloadedStore(layer, system) for layer in LAYERS], Book(system)
    step(stores[0], [1] * EXPERTS)  # whatever has to be loaded for the first read
    system.settle()
    assert system.ledger.thread is not None
    before = bytes_read(system.ledger.thread.native_id)
    with observed_by(book):
        for number, loads in enumerate(steps(3, EXPERTS, 30)):
            for layer, store in zip(LAYERS, stores, strict=True):
                outputs, rows = step(store, loads, number)
                torch.testing.assert_close(outputs, resident(weights_of(layer, EXPERTS), rows))
    system.settle()
    moved = [one for visit in book.visits for one in visit.movements] + system.ledger.moved()
    read_bytes = bytes_read(system.ledger.thread.native_id) - before
    assert sum(one.num_bytes for one in moved if one.tier == "file") == pytest.approx(read_bytes, rel=0.05)
    assert {one.tier for one in moved} == {"file", "host"}
    reasons = {one.reason for one in moved}
    assert reasons - {"prefetch"} == ({"demand", "preload"} if preload else {"demand"})
    assert foresight != "none" or "prefetch" not in reasons
    demanded = [event for visit in book.visits for event in visit.events if event.event == "demand"]
    assert sum(one.reason == "demand" for one in moved) == len(demanded)
    system.ledger.close()


def test_the_next_layer_finds_its_experts_in_memory_if_they_were_preloaded() -> None:
    """With time between the layers, and memory for one layer and one expert, the second layer reads nothing from the slower tier."""
    tier = Watched(in_memory(EXPERTS))
    system = offload(2, tier=tier, memory=HostMemory((EXPERTS + 1) * LAYOUT.entry_bytes, LAYERS), preload=1)
    first, second = (OffloadedStore(layer, system) for layer in LAYERS)
    step(first, [1, 0, 0, 0, 0, 0])
    for _, load in system.nearing:
        load.finished.wait()
    assert sorted(key for key in tier.read_keys if key[0] == LAYERS[1]) == [(LAYERS[1], expert) for expert in range(EXPERTS)]
    before, system.preload = len(tier.read_keys), 0
    step(second, [1, 1, 1, 1, 0, 1])
    assert len(tier.read_keys) == before
    system.ledger.close()


def test_slots_take_their_entries_and_nothing_more() -> None:
    system = offload(3, low=2, per_layer=False)
    assert system.resident_bytes == 3 * LAYOUT.entry_bytes + 2 * half_layout().entry_bytes
    assert OffloadedStore(LAYERS[0], system).weights.num_experts == 3


def test_a_failed_load_is_an_error_of_the_step_and_the_next_one_begins_with_empty_slots() -> None:
    tier = Failing(in_memory(EXPERTS), breakdowns=[1])
    system = offload(3, tier=tier)
    store = OffloadedStore(LAYERS[0], system)
    with pytest.raises(MoeprofError, match="expert 1 of layer 1 could not be loaded"):
        step(store, [1, 1, 0, 0, 0, 0])
    found, rows = step(store, [1, 1, 0, 0, 0, 0])
    torch.testing.assert_close(found, resident(weights_of(LAYERS[0], EXPERTS), rows), rtol=1e-4, atol=1e-5)
    assert tier.reads >= 4
    system.ledger.close()


def test_kept_slots_hold_the_same_experts_after_the_block() -> None:
    system = offload(2, per_layer=False)
    stores = [OffloadedStore(layer, system) for layer in LAYERS]
    step(stores[0], [1, 1, 0, 0, 0, 0])
    with stores[0].kept(), stores[1].kept():
        step(stores[1], [0, 0, 0, 1, 1, 1])
    assert set(system.decisions.planner.pools[0, HIGH].slots) == {ExpertUnit(0, 0), ExpertUnit(0, 1)}
    tier_reads = Watched(system.forms[HIGH].source)
    system.forms[HIGH] = Form([LAYOUT] * 2, tier_reads)  # type: ignore[index]
    found, rows = step(stores[0], [1, 1, 0, 0, 0, 0])
    assert tier_reads.read_keys == []
    torch.testing.assert_close(found, resident(weights_of(LAYERS[0], EXPERTS), rows), rtol=1e-4, atol=1e-5)
    system.ledger.close()


def test_the_order_of_a_step_is_that_of_the_arrangement_which_knows_rows_and_loads() -> None:
    seen: list[tuple[list[Demand], list[bool], list[int]]] = []

    def most_rows_first(demands: Sequence[Demand], loads: Sequence[bool], rows: Sequence[int]) -> list[Demand]:
        seen.append((list(demands), list(loads), list(rows)))
        return [demand for _, demand in sorted(zip(rows, demands, strict=True), key=lambda one: -one[0])]

    tier = Watched(in_memory(EXPERTS))
    planner = Planner(len(LAYERS), {HIGH: EXPERTS}, Lru(), per_layer=True)
    decisions = OffloadingDecisions(planner, in_high, arrange=most_rows_first)
    system = Offload(LAYERS, decisions, {HIGH: Form([LAYOUT] * 2, tier)}, Ledger(tier))
    store = OffloadedStore(LAYERS[0], system)
    step(store, [0, 2, 0, 0, 0, 0])
    step(store, [1, 1, 0, 5, 3, 0])
    assert seen[1] == ([Demand(expert) for expert in (0, 1, 3, 4)], [True, False, True, True], [1, 1, 5, 3])
    assert [expert for _, expert in tier.read_keys] == [1, 3, 4, 0]
    system.ledger.close()
