"""The store of one layer of an `Offload`: it computes units that are there while others arrive, and reports what became of each.

T tokens, K choices, E experts, N rows, D width, S slots.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor

from moeprof.instrument.probe import expert_load_probe, region
from moeprof.policies.offloading.decisions import LOADS
from moeprof.policies.offloading.planner import HIGH, Use
from moeprof.policies.offloading.priority import ExpertUnit
from moeprof.records.traces.expert_loads import ExpertUse, LayerLoads, UnitEvent
from moeprof.store.offload import Offload, StepPlan
from moeprof.store.resident import ExpertWeights, Offsets, Wave


class OffloadedStore:
    """What one layer sees of an `Offload`."""

    def __init__(self, layer: str, offload: Offload) -> None:
        self.layer, self.offload, self.index = layer, offload, offload.layers.index(layer)
        self.weights = self.weights_at(HIGH)
        self.current: StepPlan | None = None

    @property
    def slots(self) -> list[Tensor]:
        """The memory of all slots that this layer uses, and perhaps others too."""
        return [*self.offload.slabs.values(), self.offload.scratch_SB]

    def reset(self) -> None:
        """Empties all slots of all layers."""
        self.current = None
        self.offload.reset()

    def kept(self) -> AbstractContextManager[None]:
        """Restores the contents of the slots of all layers after the block."""
        return self.offload.kept()

    def weights_at(self, precision: str) -> ExpertWeights:
        """The slots of a precision as weights of this layer, packed if the form is."""
        layout = self.offload.forms[precision].layouts[self.index]
        return layout.weights(self.offload.views(ExpertUnit(self.index, 0, precision)))

    def consider(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, num_experts: int) -> None:
        """Takes the decisions of the router for a step: rows (T, D), ids (T, K) with E for no expert, weights (T, K)."""
        if self.current is not None:  # an aborted step: the contents of the slots are unknown
            self.offload.reset()
        with region("expert_load", self.layer):
            ids, weights = experts_TK.cpu().numpy(), weights_TK.double().cpu().numpy()
            self.current = self.offload.plan(self.index, x_TD, ids, weights, num_experts)

    def expect(self, offsets: Offsets) -> None:
        """Does nothing: `consider` has the decisions of the step already."""

    def waves(self) -> Iterator[Wave]:
        """Units that are there in groups, and between them the loaded ones in the order of their loads; then what is skipped."""
        plan = self.current
        assert plan is not None, "a step begins with `consider`"
        groups, wave = plan.groups(), 0
        if plan.step.far:
            assert self.offload.far is not None
            yield Wave(plan.step.far, None, send=partial(self.offload.far.begin, self.layer, plan.step.far))
        while groups or plan.arriving:
            ready = plan.arriving and plan.is_next(wave)
            group = [self.arrived(plan)] if ready or not groups else groups.popleft()
            yield from self.waves_of(group)
            self.release(plan, group)
            wave += 1
        if skipped := [use.expert for use in plan.step.uses if use.unit is None]:
            yield Wave(skipped, None)
        if plan.step.far:
            yield Wave(plan.step.far, None, outputs_ND=self.far_outputs(plan))
        self.current = None
        self.report(plan)

    def far_outputs(self, plan: StepPlan) -> Tensor:
        """Waits for what another place computes."""
        assert self.offload.far is not None
        with self.waiting(plan):
            return self.offload.far.outputs()

    @contextmanager
    def waiting(self, plan: StepPlan) -> Iterator[None]:
        """A block in which the layer waits: a stall, if a probe asks for it."""
        with region("expert_load", self.layer):
            started = None if plan.begun is None else self.offload.watch.mark()
            yield
            if started is not None:
                plan.waits.append((started, self.offload.watch.mark()))

    def waves_of(self, group: Sequence[Use]) -> Iterator[Wave]:
        """Those at the model's own precision together, each of the others unpacked by itself."""
        high = {use.slot: use.expert for use in group if use.unit is not None and use.unit.precision == HIGH}
        if high:
            yield Wave([high.get(slot, -1) for slot in range(self.weights.num_experts)], self.weights)
        for use in group:
            if use.unit is not None and use.unit.precision != HIGH:
                yield Wave([use.expert], self.unpacked(use.unit, use.slot))

    def unpacked(self, unit: ExpertUnit, slot: int) -> ExpertWeights:
        """The weights of a packed unit in the model's own precision, (1, ...), valid until the next one."""
        form, layout = self.offload.forms[unit.precision], self.offload.forms[HIGH].layouts[self.index]
        scratch = layout.weights(self.offload.scratch_SB[:, : layout.entry_bytes])
        assert form.unpack is not None
        with region("expert_load", self.layer):
            form.unpack(self.weights_at(unit.precision).map(lambda whole: whole[slot]), scratch.map(lambda whole: whole[0]))
        return scratch

    def arrived(self, plan: StepPlan) -> Use:
        """Waits for the next loaded unit and returns its use."""
        use = plan.arriving.popleft()
        assert use.unit is not None
        with self.waiting(plan):
            self.offload.ledger.wait(plan.loads[use.unit])
        self.offload.pending.pop(use.unit, None)
        return use

    def release(self, plan: StepPlan, group: Sequence[Use]) -> None:
        """Releases the slots of a computed group to the loads that wait for them."""
        for use in group:
            assert use.unit is not None
            if self.offload.ledger.stream is not None:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()
                self.offload.released[(*self.offload.decisions.planner.place_of(use.unit), use.slot)] = event
            for waiting in plan.behind.pop(use.unit, ()):
                self.offload.await_load(plan, waiting)

    def report(self, plan: StepPlan) -> None:
        """Reports the uses and stalls of the step to the expert-load probe, if there is one."""
        if (probe := expert_load_probe()) is not None and plan.begun is not None:
            watch = self.offload.watch
            ended = watch.mark()
            watch.settle()
            stall_ns = sum(watch.elapsed_ns(*wait) for wait in plan.waits)
            uses = [self.use(plan, use) for use in plan.step.uses if use.unit is not None]
            span_ns = watch.elapsed_ns(plan.begun, ended)
            moved = self.offload.ledger.moved()
            probe.visited(self.layer, LayerLoads(uses, stall_ns, span_ns, list(self.events(plan)), moved))
            watch.reuse()

    def events(self, plan: StepPlan) -> Iterator[UnitEvent]:
        """What became of every expert of the step, and what was prefetched for other layers."""
        for layer, precision, event in plan.step.events():
            loaded = event in LOADS and self.offload.forms[precision].layouts[layer].entry_bytes
            yield UnitEvent(self.offload.layers[layer], precision, event, int(loaded))

    def bytes_of(self, unit: ExpertUnit) -> int:
        """Size of a unit's entry."""
        return self.offload.forms[unit.precision].layouts[unit.layer].entry_bytes

    def use(self, plan: StepPlan, use: Use) -> ExpertUse:
        """The record of one use after its expert was computed."""
        assert use.unit is not None
        if use.transfer is None:
            return ExpertUse(use.expert, True, -1, 0, 0, 0)
        load, victim = plan.loads[use.unit], use.transfer.victim
        ended_ns = load.start_ns + load.took_ns
        return ExpertUse(
            use.expert, False, -1 if victim is None else victim.expert, self.bytes_of(use.unit), load.start_ns, ended_ns
        )
