"""What an offloading store does in each step of each layer: what is used at which precision, loaded, skipped, evicted, prefetched.

A unit is an expert of a layer at one precision. Units live in the slots of pools: one pool for each precision, of the whole model
or of each layer. Decisions depend on the routing only, never on when loads arrive, so that a replay makes the same ones as a
running model.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

from moeprof.policies.offloading.priority import ExpertUnit, Replacement

HIGH = "high"
"""The model's own precision."""
SKIP = ""
"""In place of a precision: an expert that is not worth loading."""


class Demand(NamedTuple):
    """An expert that a step needs, and the precision to load it in if it is absent, or SKIP."""

    expert: int
    precision: str = HIGH


class Transfer(NamedTuple):
    """A unit that is loaded into a slot of its pool, in place of another one."""

    unit: ExpertUnit
    slot: int
    victim: ExpertUnit | None
    """None if the slot was free."""


class Use(NamedTuple):
    """How a step gets one of its experts."""

    expert: int
    unit: ExpertUnit | None
    """None if the expert is skipped."""
    slot: int = -1
    """The slot of the unit in its pool."""
    transfer: Transfer | None = None
    """None for a hit."""

    @property
    def hit(self) -> bool:
        """Whether the unit was in its slot, or on the way into it."""
        return self.unit is not None and self.transfer is None


@dataclass
class Pool:
    """Slots for units of one precision."""

    capacity: int
    slots: dict[ExpertUnit, int] = field(default_factory=dict)
    """The slot of every unit that is resident or on its way."""
    free: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = list(range(self.capacity))[::-1]


class Planner:
    """The pools of a model and their decisions; every step of every layer asks it once, in order."""

    def __init__(self, num_layers: int, capacities: Mapping[str, int], replacement: Replacement, *, per_layer: bool) -> None:
        """`capacities` are the slots by precision, the highest first: of each layer if `per_layer`, otherwise of all.

        ValueError if a precision has none: whatever is demanded must fit.
        """
        if min(capacities.values(), default=0) < 1 or HIGH not in capacities:
            raise ValueError(f"slots {dict(capacities)}: each precision needs at least one, {HIGH} among them")
        self.num_layers, self.capacities, self.per_layer = num_layers, capacities, per_layer
        self.unused = deepcopy(replacement)
        """The policy before any use."""
        self.precisions = list(capacities)
        self.pools: dict[tuple[int, str], Pool] = {}
        self.clear()

    def clear(self) -> None:
        """Empties all slots, and forgets all uses."""
        scopes = range(self.num_layers) if self.per_layer else range(1)
        self.replacement = deepcopy(self.unused)
        self.pools = {(scope, precision): Pool(capacity) for scope in scopes for precision, capacity in self.capacities.items()}
        self.begin_sequence()

    def begin_sequence(self) -> None:
        """Forgets what priorities know of uses; what is resident stays."""
        self.token = -1
        self.last_layer = self.num_layers
        self.replacement.reset()

    def place_of(self, unit: ExpertUnit) -> tuple[int, str]:
        """Which pool may hold a unit: its layer if each has its own, otherwise 0, and its precision."""
        return unit.layer if self.per_layer else 0, unit.precision

    def pool_of(self, unit: ExpertUnit) -> Pool:
        """The pool whose slots may hold a unit."""
        return self.pools[self.place_of(unit)]

    def resident(self, layer: int, expert: int, lowest: str = SKIP) -> ExpertUnit | None:
        """The unit of the highest precision that is resident, `lowest` or higher; without it of any."""
        for precision in self.precisions:
            if (unit := ExpertUnit(layer, expert, precision)) in self.pool_of(unit).slots:
                return unit
            if precision == lowest:
                break
        return None

    def step(self, layer: int, demands: Sequence[Demand], spared: Collection[ExpertUnit] = ()) -> list[Use]:
        """The uses of a step, in the order of its demands; units of `spared` are evicted only if no others are left.

        A resident unit of a higher precision than needed serves as it is; an expert not worth loading is used if it is
        resident at any precision.
        """
        if layer <= self.last_layer:
            self.token += 1
        self.last_layer = layer
        found = (self.resident(layer, expert, precision) for expert, precision in demands)
        waiting = {unit for unit in found if unit is not None}
        served: set[ExpertUnit] = set()
        uses = []
        for expert, precision in demands:
            use = self.served(Demand(expert, precision), layer, (waiting, served, spared))
            if use.unit is not None:
                waiting.discard(use.unit)
                served.add(use.unit)
                self.replacement.touch(use.unit, self.token, precision == HIGH)
            uses.append(use)
        return uses

    def served(self, demand: Demand, layer: int, kept: Sequence[Collection[ExpertUnit]]) -> Use:
        """One use; it may evict a unit of the same step, whose expert is then computed first."""
        expert, precision = demand
        unit = self.resident(layer, expert, precision)
        if unit is not None:
            return Use(expert, unit, self.pool_of(unit).slots[unit])
        if precision == SKIP:
            return Use(expert, None)
        transfer = self.admitted(ExpertUnit(layer, expert, precision), layer, kept)
        assert transfer is not None
        return Use(expert, transfer.unit, transfer.slot, transfer)

    def admitted(
        self, unit: ExpertUnit, layer: int, kept: Sequence[Collection[ExpertUnit]], *, must: bool = True
    ) -> Transfer | None:
        """Gives a unit a slot; None if only kept units could leave and it need not be. Of those, the last ones leave first."""
        pool = self.pool_of(unit)
        if pool.free:
            slot, victim = pool.free.pop(), None
        else:
            candidates = first_not_empty(pool.slots, kept if must else [set().union(*kept)], must=must)
            if not candidates:
                return None
            victim = self.replacement.victim(candidates, layer, self.token)
            slot = pool.slots.pop(victim)
        pool.slots[unit] = slot
        return Transfer(unit, slot, victim)

    def prefetched(self, layer: int, target: int, demands: Iterable[Demand], kept: Collection[ExpertUnit]) -> list[Transfer]:
        """Loads for experts that `target` is expected to use, while `layer` runs; no kept unit leaves for them."""
        wanted = [one for one in demands if one.precision != SKIP]
        found = [self.resident(target, expert, precision) for expert, precision in wanted]
        spared = {*kept, *(unit for unit in found if unit is not None)}
        transfers: list[Transfer] = []
        for (expert, precision), there in zip(wanted, found, strict=True):
            unit = ExpertUnit(target, expert, precision)
            if there is None and (transfer := self.admitted(unit, layer, [spared], must=False)) is not None:
                transfers.append(transfer)
                spared.add(unit)
        return transfers


def first_not_empty(slots: Iterable[ExpertUnit], kept: Sequence[Collection[ExpertUnit]], *, must: bool) -> list[ExpertUnit]:
    """The units that are in none of the `kept` sets; if there are none and one must leave, the sets count less, the last ones first."""
    units = list(slots)
    for count in range(len(kept), -1 if must else len(kept) - 1, -1):
        if left := [unit for unit in units if not any(unit in one for one in kept[:count])]:
            return left
    return []
