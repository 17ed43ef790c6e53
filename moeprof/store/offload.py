"""Offloading: experts at several precisions in the slots of a model's pools, loaded on demand or ahead of it, as a planner decides.

One `Offload` serves all layers of a stack; an `OffloadedStore` (offloaded.py) is what one layer sees of it. Decisions depend on the routing
only; when a load arrives decides nothing but how long a layer waits. L layers, E experts, T tokens, K choices, S slots, B bytes
of an entry.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from moeprof.instrument.probe import expert_load_probe, order_is_fixed
from moeprof.instrument.regions import Mark, stopwatch
from moeprof.policies.offloading.decisions import OffloadingDecisions, StepDecisions
from moeprof.policies.offloading.planner import HIGH, Transfer, Use
from moeprof.policies.offloading.priority import ExpertUnit
from moeprof.records.arrays import Floats, Ints
from moeprof.store.entry import EntryLayout
from moeprof.store.groups import in_groups
from moeprof.store.host_memory import CachedTier, HostMemory, ReadAhead
from moeprof.store.ledger import Ledger, Load, Reason
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import Tier


class Far(Protocol):
    """A place that has all experts and computes those that are not worth moving."""

    def begin(self, layer: str, experts: Sequence[int], rows_ND: Tensor, counts: Sequence[int]) -> None:
        """Sends the rows of these experts, one expert after another."""
        ...

    def outputs(self) -> Tensor:
        """Waits for the outputs of the rows that were sent last, (N, D)."""
        ...


@dataclass(frozen=True)
class Form:
    """One precision of the experts: how entries of each layer look, where they come from, and how they become usable weights."""

    layouts: Sequence[EntryLayout]
    """By layer."""
    source: Tier
    unpack: Callable[[ExpertWeights, ExpertWeights], None] | None = None
    """Writes an entry's weights in the model's own precision into the second argument; None if they are usable as they are."""


@dataclass
class StepPlan:
    """The remaining work of one step of one layer."""

    begun: Mark | None
    step: StepDecisions
    awaited: set[ExpertUnit] = field(default_factory=set)
    """Units that this step waits for, prefetched ones included."""
    loads: dict[ExpertUnit, Load] = field(default_factory=dict)
    """The loads of these as far as they have been queued."""
    behind: dict[ExpertUnit, list[Use]] = field(default_factory=dict)
    """By unit that must be computed first, the uses whose loads then take its slot."""
    arriving: deque[Use] = field(default_factory=deque)
    waits: list[tuple[Mark, Mark]] = field(default_factory=list)

    def is_next(self, wave: int) -> bool:
        """Whether the next loaded expert is computed before the next group: if it has arrived, or in a fixed order."""
        unit = self.arriving[0].unit
        assert unit is not None
        return wave != 1 if order_is_fixed() else self.loads[unit].done

    def groups(self) -> deque[Sequence[Use]]:
        """Uses that need no load, in as many groups as there are loads, those whose slots are needed first at the front."""
        ready = [use for use in self.step.uses if use.unit is not None and use.unit not in self.awaited]
        order = sorted(ready, key=lambda use: use.unit not in self.behind)
        return in_groups(order, len(self.awaited))


class Offload:
    """The slots of all layers of one variant; all weights are moved by the ledger."""

    def __init__(
        self,
        layers: Sequence[str],
        decisions: OffloadingDecisions,
        forms: Mapping[str, Form],
        ledger: Ledger,
        far: Far | None = None,
        memory: HostMemory | None = None,
        preload: int = 0,
    ) -> None:
        """`layers` in order of execution; `forms` by the planner's precisions; `far` computes what the decisions leave to it.

        `memory` is the host memory that the sources of the forms read through, into which all experts are brought `preload` layers
        before their layer runs.
        """
        self.memory, self.preload = memory, preload
        self.layers, self.decisions, self.forms, self.ledger, self.far = list(layers), decisions, forms, ledger, far
        planner = decisions.planner
        self.slabs = {
            (scope, precision): self.slab(precision, [scope] if planner.per_layer else range(len(layers)), pool.capacity)
            for (scope, precision), pool in planner.pools.items()
        }
        largest = max(forms[HIGH].layouts, key=lambda layout: layout.entry_bytes)
        self.scratch_SB = largest.slab(1, ledger.device)
        self.watch = stopwatch(ledger.device, ledger.clock)
        self.begin()
        self.warm_up()

    def slab(self, precision: str, layers: Iterable[int], capacity: int) -> Tensor:
        """Slots (S, B) for the entries of some layers at one precision."""
        layouts = [self.forms[precision].layouts[layer] for layer in layers]
        return max(layouts, key=lambda layout: layout.entry_bytes).slab(capacity, self.ledger.device)

    def warm_up(self) -> None:
        """Unpacks an empty entry of every form, so that what is compiled at the first call is compiled now."""
        into = self.forms[HIGH].layouts[0].entry(self.scratch_SB[0, : self.forms[HIGH].layouts[0].entry_bytes])
        for form in self.forms.values():
            if form.unpack is not None:
                form.unpack(form.layouts[0].entry(form.layouts[0].slab(1, self.ledger.device)[0]), into)

    def begin(self) -> None:
        """What is on its way and released: nothing."""
        self.pending: dict[ExpertUnit, Load] = {}
        self.nearing: list[tuple[int, Load]] = []
        """Loads that bring experts into host memory, with the layers that these are of."""
        self.released: dict[tuple[int, str, int], torch.cuda.Event] = {}

    def reset(self) -> None:
        """Empties all slots and the host memory behind them, after waiting for loads in progress."""
        self.settle()
        self.decisions.clear()
        if self.memory is not None:
            self.memory.clear()

    def settle(self) -> None:
        """Cancels loads that nothing waits for, after those in progress."""
        for load in [*self.pending.values(), *(load for _, load in self.nearing)]:
            load.cancelled = True
            load.finished.wait()
        self.decisions.begin()
        self.begin()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restores the contents of the slots after the block, and what decisions depend on; these loads are not reported to a probe.

        What is on its way arrives before the block, because it is in a slot afterwards.
        """
        for load in self.pending.values():
            self.ledger.wait(load)
        with nullcontext() if self.memory is None else self.memory.kept(), self.decisions.kept() as before:
            yield
            self.settle()
            for pool, now in zip(before.pools.values(), self.decisions.planner.pools.values(), strict=True):
                for unit, slot in pool.slots.items():
                    if now.slots.get(unit) != slot:
                        self.ledger.wait(self.submit(Transfer(unit, slot, None), "demand"))
            self.begin()

    @property
    def resident_bytes(self) -> int:
        """Size of all slots, full or empty."""
        return sum(slab_SB.numel() for slab_SB in self.slabs.values())

    def views(self, unit: ExpertUnit) -> Tensor:
        """All slots of the unit's pool, as entries of its layer, (S, B)."""
        layout = self.forms[unit.precision].layouts[unit.layer]
        return self.slabs[self.decisions.planner.place_of(unit)][:, : layout.entry_bytes]

    def submit(self, transfer: Transfer, reason: Reason) -> Load:
        """Queues a transfer whose slot is not in use; a transfer into the same slot that has not begun is cancelled."""
        unit, slot, victim = transfer
        if victim is not None and (stale := self.pending.pop(victim, None)) is not None:
            stale.cancelled = True
        free, source = self.released.get((*self.decisions.planner.place_of(unit), slot)), self.forms[unit.precision].source
        into_B, layer = self.views(unit)[slot], self.layers[unit.layer]
        load = Load(layer, unit.expert, into_B, free, source=source, reason=reason, precision=unit.precision)
        self.ledger.submit(load)
        self.pending[unit] = load
        return load

    def plan(self, layer: int, x_TD: Tensor, experts_TK: Ints, weights_TK: Floats, num_experts: int) -> StepPlan:
        """Decides a step of a layer, and starts the loads that it needs and then those that are foreseen."""
        begun = self.watch.mark() if expert_load_probe() is not None else None
        if self.memory is not None:
            self.memory.begin(layer if self.memory.position else 0)
        plan = StepPlan(begun, self.decisions.step(layer, experts_TK, weights_TK, num_experts))
        seen: set[ExpertUnit] = set()
        for use in plan.step.uses:
            if use.unit is None:
                continue
            if use.transfer is not None and use.transfer.victim in seen:
                plan.behind.setdefault(use.transfer.victim, []).append(use)
                plan.awaited.add(use.unit)
            elif use.transfer is not None or use.unit in self.pending:
                self.await_load(plan, use)
            seen.add(use.unit)
        for transfer in self.decisions.ahead(plan.step, x_TD):
            self.submit(transfer, "prefetch")
        self.bring_nearer(layer, num_experts)
        return plan

    def foretell(self) -> None:
        """Queues loads for all layers of a step that begins, as far as they are foreseen, layer by layer."""
        for transfer in self.decisions.foretold():
            self.submit(transfer, "prefetch")

    def await_load(self, plan: StepPlan, use: Use) -> None:
        """Queues the load that a use waits for, or moves one that was foreseen to the front."""
        assert use.unit is not None
        if use.transfer is not None:
            plan.loads[use.unit] = self.submit(use.transfer, "demand")
        else:
            plan.loads[use.unit] = self.pending[use.unit]
            self.ledger.hurry(self.pending[use.unit])
        plan.awaited.add(use.unit)
        plan.arriving.append(use)

    def bring_nearer(self, layer: int, num_experts: int) -> None:
        """Queues reads of all experts of a later layer into host memory; those of this layer that have not begun are too late."""
        for target, load in self.nearing:
            load.cancelled |= target == layer
        self.nearing = [one for one in self.nearing if not one[1].finished.is_set()]
        if self.preload:
            target = (layer + self.preload) % len(self.layers)
            for load in self.preloads(target, num_experts):
                self.ledger.submit(load)
                self.nearing.append((target, load))

    def preloads(self, target: int, num_experts: int) -> Iterator[Load]:
        """Reads of all experts of a layer into host memory, in every precision."""
        for precision, form in self.forms.items():
            size_B = self.views(ExpertUnit(target, 0, precision))[0]
            if isinstance(form.source, CachedTier):
                source = ReadAhead(form.source)
                for expert in range(num_experts):
                    yield Load(self.layers[target], expert, size_B, source=source, reason="preload", precision=precision)
