"""What an offloading system decides in each step of each layer, from the decisions of a router: a running model and a replay ask it alike.

T tokens, K choices, E experts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moeprof.policies.offloading.demands import Demands
from moeprof.policies.offloading.foresight import Foresight
from moeprof.policies.offloading.order import LoadOrder, ordered
from moeprof.policies.offloading.planner import HIGH, Demand, Planner, Transfer, Use
from moeprof.policies.offloading.priority import Atu, ExpertUnit, Fifo, Lru, PriorityWeights, Replacement, WeightedPriority
from moeprof.records.arrays import Floats, Ints
from moeprof.records.errors import UsageError
from moeprof.records.recipe.offloading import Offloading

Arrange = Callable[[Sequence[Demand], Sequence[bool], Sequence[int]], list[Demand]]
"""Puts the demands of a step into the order of computation, by which of them must be loaded and how many rows each has."""

ChooseFar = Callable[[Sequence[Demand], Sequence[bool], Sequence[int]], set[int]]
"""The experts of a step that another place computes, by which of them would have to be loaded and how many rows each has."""

LOADS = ("demand", "prefetch")
"""Events that load an expert."""


@dataclass
class StepDecisions:
    """What one step of one layer uses, and what is loaded ahead of later layers meanwhile."""

    layer: int
    demands: list[Demand]
    """In the order of computation, without those of `far`."""
    far: list[int]
    """Experts that another place computes."""
    uses: list[Use]
    """One per demand."""
    foreseen: set[ExpertUnit] = field(default_factory=set)
    """Units that this step is the first to use after they were prefetched."""
    prefetched: list[ExpertUnit] = field(default_factory=list)

    def events(self) -> Iterator[tuple[int, str, str]]:
        """Layer, precision and name of what became of every expert of the step, and of what was prefetched for other layers."""
        for use in self.uses:
            if use.unit is None:
                yield self.layer, HIGH, "skip"
            elif use.transfer is not None:
                yield self.layer, use.unit.precision, "demand"
            else:
                yield self.layer, use.unit.precision, "foreseen" if use.unit in self.foreseen else "hit"
        for _ in self.far:
            yield self.layer, HIGH, "far"
        for unit in self.prefetched:
            yield unit.layer, unit.precision, "prefetch"


class OffloadingDecisions:
    """A planner that is asked step by step, with what is prefetched and must stay until its layer has run."""

    def __init__(
        self,
        planner: Planner,
        demands: Demands,
        foresight: Foresight | None = None,
        arrange: Arrange | None = None,
        choose_far: ChooseFar | None = None,
    ) -> None:
        """Without `arrange` experts are taken by id; without `choose_far` all are computed here."""
        self.planner, self.demands, self.foresight = planner, demands, foresight
        self.arrange, self.choose_far = arrange, choose_far
        self.begin()

    def begin(self) -> None:
        """What is spared for later layers, or was prefetched and not used yet: nothing."""
        self.spared: dict[int, set[ExpertUnit]] = {}
        self.unproven: set[ExpertUnit] = set()
        self.early: list[ExpertUnit] = []
        """Units that are loaded before the first layer of the step begins."""

    def clear(self) -> None:
        """Empties all slots and forgets what was used."""
        self.planner.clear()
        if self.foresight is not None:
            self.foresight.history.clear()
        self.begin()

    @contextmanager
    def kept(self) -> Iterator[Planner]:
        """Restores, after the block, what later decisions depend on; gives the planner as it was before."""
        before = deepcopy((self.planner, self.spared, self.unproven, self.early))
        history = {} if self.foresight is None else deepcopy(self.foresight.history)
        yield before[0]
        self.planner, self.spared, self.unproven, self.early = before
        if self.foresight is not None:
            self.foresight.history.clear()
            self.foresight.history.update(history)

    def step(self, layer: int, experts_TK: Ints, weights_TK: Floats, num_experts: int) -> StepDecisions:
        """Decides what a step of a layer uses; id E stands for no expert."""
        demands, far = self.demands(experts_TK, weights_TK, num_experts), list[int]()
        if self.arrange is not None or self.choose_far is not None:
            far, demands = self.arranged(layer, demands, np.bincount(experts_TK.ravel(), minlength=num_experts).tolist())
        self.spared.pop(layer, None)
        found = StepDecisions(layer, demands, far, self.planner.step(layer, demands, set().union(*self.spared.values())))
        for use in found.uses:
            if use.transfer is not None and use.transfer.victim is not None:
                self.unproven.discard(use.transfer.victim)
            if use.unit is not None and use.unit in self.unproven:
                self.unproven.discard(use.unit)
                found.foreseen.add(use.unit)
        found.prefetched, self.early = self.early, []
        return found

    def arranged(self, layer: int, demands: list[Demand], rows_E: Sequence[int]) -> tuple[list[int], list[Demand]]:
        """The experts of a step that another place computes, and the demands for the others in the order of computation."""
        loads = [self.planner.resident(layer, expert, precision) is None for expert, precision in demands]
        rows = [rows_E[expert] for expert, _ in demands]
        far = set() if self.choose_far is None else self.choose_far(demands, loads, rows)
        near = [index for index, one in enumerate(demands) if one.expert not in far]
        left = [demands[index] for index in near]
        if self.arrange is not None:
            left = self.arrange(left, [loads[index] for index in near], [rows[index] for index in near])
        return sorted(far), left

    def ahead(self, step: StepDecisions, x_TD: Any = None) -> list[Transfer]:
        """What is loaded for later layers once the loads of the step are on their way; `x_TD` are the rows that its router saw."""
        if self.foresight is None:
            return []
        busy = {use.unit for use in step.uses if use.unit is not None}
        transfers = self.prefetch(step.layer, self.foresight.hints(step.layer, step.demands, x_TD), busy)
        step.prefetched += [transfer.unit for transfer in transfers]
        return transfers

    def foretold(self) -> Iterator[Transfer]:
        """What is loaded for all layers of a step that begins, as far as they are foreseen, layer by layer."""
        for hint in () if self.foresight is None else self.foresight.hints(-1, ()):
            transfers = self.prefetch(-1, [hint], set())
            self.early += [transfer.unit for transfer in transfers]
            yield from transfers

    def prefetch(self, layer: int, hints: Iterable[tuple[int, list[Demand]]], busy: set[ExpertUnit]) -> list[Transfer]:
        """Loads for the first of the foreseen layers that lacks an expert; the units of all are spared until it has run."""
        for target, demands in hints:
            transfers = self.planner.prefetched(layer, target, demands, busy.union(*self.spared.values()))
            for transfer in transfers:
                if transfer.victim is not None:
                    self.unproven.discard(transfer.victim)
                self.unproven.add(transfer.unit)
            found = (self.planner.resident(target, one.expert) for one in demands)
            self.spared[target] = {unit for unit in found if unit is not None}
            if transfers:
                return transfers
        return []


@dataclass(frozen=True)
class Arrangement:
    """InfMoE: the order in which a step's experts are loaded and computed, by their estimated times."""

    order: LoadOrder
    slots: int
    load_ns: Mapping[str, float]
    """Time to load an expert, by precision."""
    call_ns: float
    """Time to compute an expert, without its rows."""
    row_ns: float

    def __call__(self, demands: Sequence[Demand], loads: Sequence[bool], rows: Sequence[int]) -> list[Demand]:
        """Resident and skipped experts take no time to load."""
        load_J = np.array([self.load_ns.get(one.precision, 0) * loaded for one, loaded in zip(demands, loads, strict=True)])
        compute_J = self.call_ns + self.row_ns * np.array(rows, float)
        return [demands[job] for job in ordered(load_J, compute_J, self.slots, self.order)]


def planner_of(choice: Offloading, slots: int, entry_bytes: Sequence[Mapping[str, int]], most: int) -> Planner:
    """The pools of a stack with the bytes of `slots` high-precision experts per layer; `entry_bytes` by precision of each layer.

    `most` is the number of experts of a layer. UsageError as in `capacities`.
    """
    largest = {name: max(sizes[name] for sizes in entry_bytes) for name in (HIGH, *choice.low)}
    found = capacities(choice, slots, len(entry_bytes), largest, most)
    return Planner(len(entry_bytes), found, replacement_of(choice, len(entry_bytes)), per_layer=choice.per_layer)


def replacement_of(choice: Offloading, num_layers: int) -> Replacement:
    """Who leaves a full pool."""
    kinds: dict[str, Callable[[], Replacement]] = {
        "lru": Lru,
        "fifo": Fifo,
        "atu": Atu,
        "weighted": lambda: WeightedPriority(PriorityWeights(*choice.weights), num_layers),
    }
    return kinds[choice.eviction]()


def capacities(choice: Offloading, slots: int, num_layers: int, entry_bytes: Mapping[str, int], most: int) -> dict[str, int]:
    """Slots of each precision that the bytes of `slots` high-precision entries per layer hold: per layer, or in all.

    A precision gets no more slots than there are units; the bytes that it does not use go to the next one. UsageError if one gets none.
    """
    layers = 1 if choice.per_layer else num_layers
    budget, found, left = slots * layers * entry_bytes[HIGH], {}, 0.0
    for share, (precision, size) in zip(choice.shares, entry_bytes.items(), strict=True):
        left += share * budget
        found[precision] = min(int(left / size + 1e-9), most * layers)
        if not found[precision]:
            what = f"preset {choice.name}: {share:.0%} of the bytes of {slots} slots hold no expert in {precision} precision"
            raise UsageError(what, "Use more --slots, or other shares.")
        left -= found[precision] * size
    return found
