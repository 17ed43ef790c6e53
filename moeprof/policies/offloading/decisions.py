"""Everything that an offloading system decides for a stack, step by step: a store carries it out, a replay only counts it.

Decisions depend on the routing only, never on when loads arrive. T tokens, K choices, E experts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moeprof.policies.offloading.demands import Demands
from moeprof.policies.offloading.foresight import Foresight
from moeprof.policies.offloading.planner import Demand, Planner, Transfer, Use
from moeprof.policies.offloading.priority import ExpertUnit
from moeprof.records.arrays import Floats, Ints

Arrange = Callable[[Sequence[Demand], Sequence[bool], Sequence[int]], list[Demand]]
"""Puts the demands of a step into the order of computation, by which of them must be loaded and how many rows each has."""

Chosen = Callable[[Sequence[Demand], Sequence[bool], Sequence[int]], set[int]]
"""The experts of a step that another place computes, by the same."""

LOADING = ("demand", "prefetch")
"""Events that load an expert."""


@dataclass
class StepDecisions:
    """What becomes of the experts of one step of one layer."""

    layer: int
    demands: list[Demand]
    """Without those that another place computes, in the order of computation."""
    far: list[int]
    """Experts that another place computes."""
    uses: list[Use]
    foreseen: set[ExpertUnit] = field(default_factory=set)
    """Units that this step is the first to use after they were prefetched."""
    prefetched: list[ExpertUnit] = field(default_factory=list)
    """For other layers, the prefetches before the first layer of the step included."""

    def events(self) -> Iterator[tuple[ExpertUnit, str]]:
        """Units with what became of them: `hit`, `foreseen`, `demand`, `skip`, `far`, or `prefetch`, which is no use."""
        for use in self.uses:
            if use.unit is None:
                yield ExpertUnit(self.layer, use.expert), "skip"
            elif use.transfer is not None:
                yield use.unit, "demand"
            else:
                yield use.unit, "foreseen" if use.unit in self.foreseen else "hit"
        for expert in self.far:
            yield ExpertUnit(self.layer, expert), "far"
        for unit in self.prefetched:
            yield unit, "prefetch"


class OffloadDecisions:
    """The contents of all slots of a stack, and what has been foreseen and not used yet."""

    def __init__(
        self,
        planner: Planner,
        demands: Demands,
        foresight: Foresight | None = None,
        arrange: Arrange | None = None,
        chosen: Chosen | None = None,
    ) -> None:
        """Without `arrange` experts are taken by id; `chosen` are those that another place computes."""
        self.planner, self.demands, self.foresight, self.arrange, self.chosen = planner, demands, foresight, arrange, chosen
        self.begin()

    def begin(self) -> None:
        """Nothing is spared for later layers, and no prefetch waits for its first use."""
        self.spared: dict[int, set[ExpertUnit]] = {}
        self.unproven: set[ExpertUnit] = set()
        """Units that were prefetched and not used yet."""
        self.early: list[ExpertUnit] = []
        """Units that were prefetched before the first layer of the step began."""

    def copied(self) -> "OffloadDecisions":
        """The same state, which changes by itself: slots, priorities, and what the foresight has seen."""
        other = copy(self)
        for name in ("planner", "foresight", "spared", "unproven", "early"):
            setattr(other, name, deepcopy(getattr(self, name)))
        return other

    def step(self, layer: int, experts_TK: Ints, weights_TK: Floats, num_experts: int) -> StepDecisions:
        """What a step of a layer uses, loads and evicts; expert E stands for none."""
        demands, far = self.demands(experts_TK, weights_TK, num_experts), list[int]()
        if self.arrange is not None or self.chosen is not None:
            far, demands = self.arranged(layer, demands, np.bincount(experts_TK.ravel(), minlength=num_experts).tolist())
        self.spared.pop(layer, None)
        uses = self.planner.step(layer, demands, set().union(*self.spared.values()))
        found = StepDecisions(layer, demands, far, uses, prefetched=self.early)
        self.early = []
        for use in uses:
            if use.transfer is not None:
                self.unproven.discard(use.transfer.victim)
            elif use.unit in self.unproven:
                self.unproven.discard(use.unit)
                found.foreseen.add(use.unit)
        return found

    def arranged(self, layer: int, demands: list[Demand], rows_E: Sequence[int]) -> tuple[list[int], list[Demand]]:
        """The experts of a step that another place computes, and the demands for the others in the order of computation."""
        loads = [self.planner.resident(layer, expert, precision) is None for expert, precision in demands]
        rows = [rows_E[expert] for expert, _ in demands]
        far = set() if self.chosen is None else self.chosen(demands, loads, rows)
        near = [index for index, one in enumerate(demands) if one.expert not in far]
        left = [demands[index] for index in near]
        if self.arrange is not None:
            left = self.arrange(left, [loads[index] for index in near], [rows[index] for index in near])
        return sorted(far), left

    def foresee(self, step: StepDecisions, x_TD: Any = None) -> list[Transfer]:
        """The prefetches while a step runs; asked after its loads have been queued, because foreseeing may take time."""
        if self.foresight is None:
            return []
        hints = self.foresight.hints(step.layer, step.demands, x_TD)
        transfers = self.prefetch(step.layer, hints, {use.unit for use in step.uses if use.unit})
        step.prefetched += [transfer.unit for transfer in transfers]
        return transfers

    def foretell(self) -> Iterator[Transfer]:
        """Prefetches for all layers of a step that begins, as far as they are foreseen, layer by layer."""
        if self.foresight is not None:
            for hint in self.foresight.hints(-1, ()):
                transfers = self.prefetch(-1, [hint], set())
                self.early += [transfer.unit for transfer in transfers]
                yield from transfers

    def prefetch(self, layer: int, hints: Iterable[tuple[int, list[Demand]]], busy: set[ExpertUnit]) -> list[Transfer]:
        """Loads for the first of the foreseen layers that lacks an expert; the units of all are spared until it has run."""
        for target, demands in hints:
            transfers = self.planner.prefetched(layer, target, demands, busy.union(*self.spared.values()))
            for transfer in transfers:
                self.unproven.discard(transfer.victim)
                self.unproven.add(transfer.unit)
            found = (self.planner.resident(target, one.expert) for one in demands)
            self.spared[target] = {unit for unit in found if unit is not None}
            if transfers:
                return transfers
        return []
