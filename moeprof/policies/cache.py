"""The one cache of experts: it serves batch after batch, and reports which experts hit, miss and are evicted.

A replay drives it over a recorded trace, and an expert store while a model runs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from moeprof.policies.eviction.eviction import NEVER, Eviction, ExpertHistory

AccessMode = Literal["sequential", "batch"]
"""`sequential` makes room for every expert when it is used. `batch` admits and protects the whole batch, and then evicts what
exceeds the capacity: from the rest, or from the batch if the batch alone is too large."""


class Access(NamedTuple):
    """One use of an expert: whether it was resident, and which experts were evicted for it."""

    expert: int
    hit: bool
    victims: tuple[int, ...] = ()
    """At most one if experts have equal sizes; the expert itself if it was used without being kept."""

    @property
    def victim(self) -> int:
        """The first evicted expert, -1 if a cache slot was free."""
        return self.victims[0] if self.victims else -1


class Cache:
    """`capacity` cache slots, or bytes if `sizes` gives the bytes of each expert.

    `future` is every access to come, in order, for policies that need it. `layers` is the layer of each expert if one cache holds
    several; a batch is of one layer. An expert larger than the whole capacity empties the cache and is evicted at once.
    """

    def __init__(
        self,
        capacity: int,
        eviction: Eviction,
        *,
        future: Sequence[int] = (),
        sizes: Mapping[int, int] | Sequence[int] | None = None,
        layers: Mapping[int, int] | Sequence[int] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a cache needs a capacity of at least 1, not {capacity}")
        if eviction.needs_future and not len(future):
            raise ValueError(f"{eviction.name} needs the future accesses")
        self.capacity, self.eviction = capacity, eviction
        self.resident: set[int] = set()
        self._held, self._sizes, self._layers = 0, sizes, layers
        self._age, self._batches = 0, 0
        self._histories: dict[int, ExpertHistory] = {}
        self._future, self._next_uses, self._now = future, next_uses(future), 0
        if eviction.needs_future:
            self._foresee(Counter(future))

    def batch(self, active: Sequence[int], access: AccessMode = "sequential") -> list[Access]:
        """Uses the experts of one batch in order; an expert that occurs twice is used twice."""
        self._batches += 1
        for expert, history in self._histories.items():
            if active and self._layer(expert) == self._layer(active[0]):
                history.fresh = history.fresh_batch = 0
        for position, expert in enumerate(active, 1):
            history = self._histories.setdefault(expert, ExpertHistory())
            history.active, history.due = 1, position
        steps = [active] if access == "batch" else [[expert] for expert in active]
        outcome = [one for step in steps for one in self._serve(step, len(active))]
        for expert in active:
            self._histories[expert].active = self._histories[expert].due = 0
        return outcome

    def _serve(self, experts: Sequence[int], period: int) -> list[Access]:
        """Uses experts that must all be resident at the same time, then makes room."""
        hits = [self._use(expert, period) for expert in experts]
        victims = self._shrink(protected=frozenset() if self.eviction.may_bypass else frozenset(experts))
        return [
            Access(expert, hit, evicted) for expert, hit, evicted in zip(experts, hits, shared_out(victims, hits), strict=True)
        ]

    def _use(self, expert: int, period: int) -> bool:
        """Makes the expert resident; returns whether it was resident before."""
        hit, history = expert in self.resident, self._histories[expert]
        if not hit:
            self.resident.add(expert)
            self._held += self._size(expert)
            history.inserted, history.uses_since_insertion = self._now, 0
        history.used = self._now
        history.uses += 1
        history.uses_since_insertion += 1
        history.due += period
        history.next_use = self._next_use(expert)
        history.aged_uses = history.uses_since_insertion + self._age
        history.fresh, history.fresh_batch = 1, self._batches
        self._now += 1
        return hit

    def _shrink(self, protected: frozenset[int]) -> list[int]:
        """Evicts until the rest fits, protected experts only if no others are left; returns the victims in order."""
        victims = []
        while self._held > self.capacity:
            candidates = self.resident - protected or self.resident
            victim = min(candidates, key=lambda expert: (*self.eviction.priority(self._histories[expert]), expert))
            self.resident.remove(victim)
            self._age = max(self._age, self._histories[victim].aged_uses)
            self._held -= self._size(victim)
            victims.append(victim)
        return victims

    def _foresee(self, uses: Mapping[int, int]) -> None:
        """Notes how popular the experts are going to be, and pins the most popular ones that fit into half of the capacity."""
        room = self.capacity // 2
        for expert in sorted(uses, key=lambda expert: (-uses[expert], expert)):
            room -= self._size(expert)
            self._histories[expert] = ExpertHistory(popularity=uses[expert], pinned=int(room >= 0))

    def _layer(self, expert: int) -> int:
        return 0 if self._layers is None else self._layers[expert]

    def _size(self, expert: int) -> int:
        return 1 if self._sizes is None else self._sizes[expert]

    def _next_use(self, expert: int) -> int:
        """When the expert is used next, or NEVER; ValueError if the access in progress differs from the given future."""
        if not self._next_uses:
            return NEVER
        if self._now >= len(self._future) or self._future[self._now] != expert:
            raise ValueError(f"access {self._now} to expert {expert} differs from the given future accesses")
        return self._next_uses[self._now]


def next_uses(future: Sequence[int]) -> list[int]:
    """For every access the index of the next access to the same expert, or NEVER."""
    following: dict[int, int] = {}
    backwards = []
    for now in range(len(future) - 1, -1, -1):
        backwards.append(following.get(future[now], NEVER))
        following[future[now]] = now
    return backwards[::-1]


def shared_out(victims: Sequence[int], hits: Sequence[bool]) -> list[tuple[int, ...]]:
    """Which experts were evicted for every access: none for the first misses, which took free slots, then one for each miss.

    Experts of unequal sizes may need more victims than there are misses: the last miss gets the rest.

        victims 7, 8 and hits no, yes, no, no  ->  (), (), (7,), (8,)
        victims 7, 8, 9 and hits no, yes, no   ->  (7,), (), (8, 9)
    """
    misses = [index for index, hit in enumerate(hits) if not hit]
    owed = misses[max(0, len(misses) - len(victims)) :]
    shared: list[tuple[int, ...]] = [()] * len(hits)
    for number, index in enumerate(owed):
        shared[index] = tuple(victims[number:] if index == owed[-1] else victims[number : number + 1])
    return shared
