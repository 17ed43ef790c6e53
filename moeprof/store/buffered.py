"""Expert buffering (paper section V): a layer's experts in a fixed number of cache slots, loaded when a step uses them.

The eviction policy processes a step's experts in the order of their ids before any weights are moved, so its decisions do not
depend on timing. A slot is reused within the step as soon as its expert has been computed. L local experts, S cache slots,
B bytes of an entry.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from moeprof.instrument.probe import expert_load_probe, order_is_fixed, region
from moeprof.instrument.regions import Mark, stopwatch
from moeprof.policies.cache import Access, Cache
from moeprof.policies.eviction.eviction import Eviction
from moeprof.records.traces.expert_loads import ExpertUse, LayerLoads
from moeprof.store.entry import EntryLayout
from moeprof.store.groups import in_groups
from moeprof.store.host_memory import CachedTier
from moeprof.store.ledger import Ledger, Load
from moeprof.store.resident import Offsets, Wave
from moeprof.store.tier import Tier


@dataclass
class Plan:
    """The remaining work of a step; experts by their logical ids."""

    begun: Mark | None
    """When the experts of the step were known; None without an expert-load probe."""
    accesses: list[Access] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)
    """The cache slot of every active expert while it is computed."""
    loads: dict[int, Load] = field(default_factory=dict)
    arriving: deque[int] = field(default_factory=deque)
    """Experts being loaded, in order."""
    behind: dict[int, int] = field(default_factory=dict)
    """By expert that must be computed first, the one that is then loaded into its slot."""
    waits: list[tuple[Mark, Mark]] = field(default_factory=list)
    """Stalls of the layer; empty without an expert-load probe."""

    def is_next(self, wave: int) -> bool:
        """Whether the next loaded expert is computed before the next group: if it has arrived.

        If a probe needs an order that does not depend on timing: in every wave but the second, as with a fast tier.
        """
        return wave != 1 if order_is_fixed() else self.loads[self.arriving[0]].done

    def groups(self) -> deque[Sequence[int]]:
        """Cached experts in as many groups as experts are loaded, those whose slots are needed first at the front.

        The groups depend on the routing only, so that outputs have the same bits in every run.
        """
        hits = [access.expert for access in self.accesses if access.hit]
        wanted = [expert for expert in self.behind if expert not in self.loads]
        order = wanted + [expert for expert in hits if expert not in self.behind]
        return in_groups(order, len(self.loads))


class BufferedStore:
    """The cache slots of one layer on one device; all weights are moved by the ledger."""

    def __init__(
        self,
        layer: str,
        held: Sequence[int],
        num_slots: int,
        eviction: Eviction,
        layout: EntryLayout,
        ledger: Ledger,
        source: Tier | None = None,
    ) -> None:
        """`held` are the logical ids of the L experts, in physical order; ValueError unless there are 1 to L slots.

        `source` is where experts come from if not from the ledger's own tier.
        """
        if not 1 <= num_slots <= len(held):
            raise ValueError(f"{num_slots} slots for {len(held)} experts")
        self.layer, self.held, self.eviction, self.layout, self.ledger = layer, held, eviction, layout, ledger
        self.source = source
        self.place_of = {expert: place for place, expert in enumerate(held)}
        self.slab_SB = layout.slab(num_slots, ledger.device)
        self.weights = layout.weights(self.slab_SB)
        self.watch = stopwatch(ledger.device, ledger.clock)
        self.plan: Plan | None = None
        self.reset()

    @property
    def num_slots(self) -> int:
        """S, the number of cache slots."""
        return len(self.slab_SB)

    @property
    def all_fit(self) -> bool:
        """Whether every expert has a slot."""
        return self.num_slots == len(self.held)

    @property
    def slots(self) -> list[Tensor]:
        """The memory of the slots."""
        return list(self.weights.values())

    @property
    def resident_bytes(self) -> int:
        """Size of all slots, full or empty."""
        return self.num_slots * self.layout.entry_bytes

    def reset(self) -> None:
        """Empties every slot, after waiting for loads in progress."""
        if self.plan is not None:
            for expert in self.plan.arriving:
                self.plan.loads[expert].finished.wait()
        if isinstance(self.source, CachedTier):
            self.source.memory.clear()
        self.cache = Cache(self.num_slots, self.eviction)
        self.slot_of: dict[int, int] = {}
        self.free = list(range(self.num_slots))[::-1]
        self.released: dict[int, torch.cuda.Event] = {}
        self.plan = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restores the contents of the slots after the block; these loads are not reported to a probe."""
        cache, slot_of, free = deepcopy((self.cache, self.slot_of, self.free))
        with self.source.memory.kept() if isinstance(self.source, CachedTier) else nullcontext():
            yield
            gone = [expert for expert, slot in slot_of.items() if self.slot_of.get(expert) != slot]
            self.reset()
            for expert in gone:
                load = self.load(expert, slot_of[expert])
                self.ledger.submit(load)
                self.ledger.wait(load)
        self.cache, self.slot_of, self.free = cache, slot_of, free  # last, so that the store is empty if a load fails

    def expect(self, offsets: Offsets) -> None:
        """Applies the policy to the step's experts and starts loads whose slots are free."""
        if self.plan is not None:  # an aborted step: the contents of the slots are unknown
            self.reset()
        watched = expert_load_probe() is not None
        if watched or len(self.slot_of) < len(self.held):
            with region("expert_load", self.layer):
                experts = sorted(self.held[place] for place in active(offsets))
                if watched or not self.all_fit or not self.slot_of.keys() >= set(experts):
                    self.plan = Plan(self.watch.mark() if watched else None)
                    self.begin(self.plan, experts)

    def begin(self, plan: Plan, experts: list[int]) -> None:
        """Plans slots and loads for the step as the policy decides."""
        plan.accesses = self.decided(experts)
        seen: set[int] = set()
        for access in plan.accesses:
            if not access.hit:
                slot = self.slot_of.pop(access.victim) if access.victims else self.free_slot(access.expert)
                self.slot_of[access.expert] = slot
                plan.loads[access.expert] = self.load(access.expert, slot)
            plan.slots[access.expert] = self.slot_of[access.expert]
            if access.victim in seen:
                plan.behind[access.victim] = access.expert
            elif not access.hit:
                self.submit(plan, access.expert)
            seen.add(access.expert)

    def decided(self, experts: list[int]) -> list[Access]:
        """The decisions of the policy; if every expert has a slot, none is evicted."""
        if self.all_fit:
            return [Access(expert, expert in self.slot_of) for expert in experts]
        return self.cache.batch(experts)

    def free_slot(self, expert: int) -> int:
        """A free slot; if every expert has a slot, its own, so that experts are in order."""
        return self.place_of[expert] if self.all_fit else self.free.pop()

    def load(self, expert: int, slot: int) -> Load:
        """The transfer of an expert into a slot."""
        return Load(self.layer, expert, self.slab_SB[slot], source=self.source)

    def submit(self, plan: Plan, expert: int) -> None:
        """Queues the load of an expert into its slot, which is no longer in use."""
        load = plan.loads[expert]
        load.free = self.released.get(plan.slots[expert])
        self.ledger.submit(load)
        plan.arriving.append(expert)

    def waves(self) -> Iterator[Wave]:
        """Cached experts in groups, and between them the loaded ones in the order of their loads."""
        plan = self.plan
        if plan is None or (self.all_fit and not plan.loads):
            yield Wave(None, self.weights)
        else:
            groups, wave = plan.groups(), 0
            while groups or plan.arriving:
                ready = plan.arriving and plan.is_next(wave)
                group = [self.arrived(plan)] if ready or not groups else groups.popleft()
                yield Wave(self.places(plan, group), self.weights)
                self.release(plan, group)
                wave += 1
        if plan is not None:
            self.plan = None
            self.report(plan)

    def arrived(self, plan: Plan) -> int:
        """Waits for the next loaded expert and returns its id."""
        load = plan.loads[plan.arriving[0]]
        with region("expert_load", self.layer):
            started = None if plan.begun is None else self.watch.mark()
            self.ledger.wait(load)
            if started is not None:
                plan.waits.append((started, self.watch.mark()))
        return plan.arriving.popleft()

    def places(self, plan: Plan, group: Sequence[int]) -> list[int]:
        """The physical expert in every slot, -1 if it is not in the group."""
        places = [-1] * self.num_slots
        for expert in group:
            places[plan.slots[expert]] = self.place_of[expert]
        return places

    def release(self, plan: Plan, group: Sequence[int]) -> None:
        """Releases the slots of a computed group to the loads that wait for them."""
        for expert in group:
            if self.ledger.stream is not None:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()
                self.released[plan.slots[expert]] = event
            if expert in plan.behind:
                self.submit(plan, plan.behind.pop(expert))

    def report(self, plan: Plan) -> None:
        """Reports the accesses and stalls of the step to the expert-load probe, if there is one."""
        if (probe := expert_load_probe()) is not None and plan.begun is not None:
            ended = self.watch.mark()
            self.watch.settle()
            stall_ns = sum(self.watch.elapsed_ns(*wait) for wait in plan.waits)
            uses = [self.use(plan, access) for access in plan.accesses]
            span_ns = self.watch.elapsed_ns(plan.begun, ended)
            probe.visited(self.layer, LayerLoads(uses, stall_ns, span_ns, movements=self.ledger.moved()))
            self.watch.reuse()

    def use(self, plan: Plan, access: Access) -> ExpertUse:
        """The record of one access after its expert was computed."""
        load = plan.loads.get(access.expert)
        if load is None:
            return ExpertUse(access.expert, True, access.victim, 0, 0, 0)
        ended_ns = load.start_ns + load.took_ns
        return ExpertUse(access.expert, False, access.victim, self.layout.entry_bytes, load.start_ns, ended_ns)


def active(offsets: Offsets) -> list[int]:
    """Physical experts that have rows; waits for bounds that are on a device."""
    bounds = offsets.tolist() if isinstance(offsets, Tensor) else offsets
    return [expert for expert, (first, last) in enumerate(pairwise(bounds)) if first < last]
