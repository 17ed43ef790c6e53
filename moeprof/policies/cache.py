"""The one cache of experts: asked batch by batch, it says who is there, who is loaded and who leaves.

A replay drives it over a recorded trace, an expert store while a model runs.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from moeprof.policies.eviction.eviction import NEVER, Eviction, History

AccessMode = Literal["sequential", "batch"]
"""`sequential` makes room for every expert when it is used. `batch` admits and protects the whole batch, and then evicts
what exceeds the slots: from the rest, or from the batch where the batch alone is too large."""


class Access(NamedTuple):
    """One use of an expert: whether it was there, and who left for it."""

    expert: int
    hit: bool
    victims: tuple[int, ...] = ()
    """At most one where experts have equal sizes; the expert itself where it was used without being kept."""

    @property
    def victim(self) -> int:
        """The first that left, -1 where a slot was free."""
        return self.victims[0] if self.victims else -1


class Cache:
    """`capacity` slots, or bytes where `sizes` says how many each expert takes.

    `future` is every access to come, in order, for policies that need it. An expert larger than the whole capacity
    empties it and leaves at once.
    """

    def __init__(
        self,
        capacity: int,
        eviction: Eviction,
        *,
        future: Sequence[int] = (),
        sizes: Mapping[int, int] | Sequence[int] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a cache of {capacity} keeps nothing")
        if eviction.needs_future and not len(future):
            raise ValueError(f"{eviction.name} decides by the future, and none was given")
        self.capacity, self.eviction = capacity, eviction
        self.resident: set[int] = set()
        self._held, self._sizes = 0, sizes
        self._histories: dict[int, History] = {}
        self._future, self._next_uses, self._now = future, next_uses(future), 0

    def batch(self, active: Sequence[int], access: AccessMode = "sequential") -> list[Access]:
        """Uses the experts of one batch in order; an expert used twice is one use after another."""
        for turn, expert in enumerate(active, 1):
            history = self._histories.setdefault(expert, History())
            history.active, history.due = 1, turn
        steps = [active] if access == "batch" else [[expert] for expert in active]
        outcome = [one for step in steps for one in self._serve(step, len(active))]
        for expert in active:
            self._histories[expert].active = self._histories[expert].due = 0
        return outcome

    def _serve(self, experts: Sequence[int], period: int) -> list[Access]:
        """Uses experts that must all be there at the same time, then makes room."""
        hits = [self._use(expert, period) for expert in experts]
        victims = self._shrink(protected=frozenset() if self.eviction.may_bypass else frozenset(experts))
        left = shared_out(victims, hits)
        return [Access(expert, hit, gone) for expert, hit, gone in zip(experts, hits, left, strict=True)]

    def _use(self, expert: int, period: int) -> bool:
        """Whether it was there; afterwards it is."""
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
        self._now += 1
        return hit

    def _shrink(self, protected: frozenset[int]) -> list[int]:
        """Evicts until the rest fits, the protected only where nobody else is left; who left, in order."""
        victims = []
        while self._held > self.capacity:
            candidates = self.resident - protected or self.resident
            victim = min(candidates, key=lambda expert: (*self.eviction.rank(self._histories[expert]), expert))
            self.resident.remove(victim)
            self._held -= self._size(victim)
            victims.append(victim)
        return victims

    def _size(self, expert: int) -> int:
        return 1 if self._sizes is None else self._sizes[expert]

    def _next_use(self, expert: int) -> int:
        """When the future says it is used again; ValueError where the access in progress is not what the future said."""
        if not self._next_uses:
            return NEVER
        if self._now >= len(self._future) or self._future[self._now] != expert:
            raise ValueError(f"access {self._now} to expert {expert} is not in the future that was given")
        return self._next_uses[self._now]


def next_uses(future: Sequence[int]) -> list[int]:
    """For every access when the same expert is used again, or NEVER."""
    following: dict[int, int] = {}
    backwards = []
    for now in range(len(future) - 1, -1, -1):
        backwards.append(following.get(future[now], NEVER))
        following[future[now]] = now
    return backwards[::-1]


def shared_out(victims: Sequence[int], hits: Sequence[bool]) -> list[tuple[int, ...]]:
    """Who left, for every access: free slots go to the first misses, one victim to each later one, what is left to the last."""
    misses = [index for index, hit in enumerate(hits) if not hit]
    owed = misses[max(0, len(misses) - len(victims)) :]
    left: list[tuple[int, ...]] = [()] * len(hits)
    for number, index in enumerate(owed):
        left[index] = tuple(victims[number:] if index == owed[-1] else victims[number : number + 1])
    return left
