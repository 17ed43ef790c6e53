"""What an eviction policy is: an order of the resident experts by what is known of each; the first one is evicted.

An order is data, not code, so that the cache, the replay over many sizes and the expert store all read the same one.
"""

from dataclasses import dataclass
from typing import Literal

NEVER = 2**62
"""The next use of an expert that is not used again."""


@dataclass(slots=True)
class ExpertHistory:
    """What is known of one expert; times are numbers of accesses, from 0."""

    inserted: int = -1
    """When it was last loaded."""
    used: int = -1
    """When it was last used."""
    uses: int = 0
    """How often it was used so far, resident or not."""
    uses_since_insertion: int = 0
    """How often it was used since it was last loaded, that use included."""
    active: int = 0
    """1 if the batch in progress uses it."""
    due: int = 0
    """Its position in the batch in progress, from 1; after its use, its position if the same batch came again; 0 if inactive."""
    next_use: int = NEVER
    """When it is used next; known only for a recorded trace."""
    popularity: int = 0
    """How often it is used in all; known only for a recorded trace."""
    pinned: int = 0
    """1 if it is one of the most popular experts, which together fill at most half of the cache."""
    aged_uses: int = 0
    """At its last use: `uses_since_insertion` + the largest such number of an expert that had been evicted."""
    fresh: int = 0
    """1 if the last batch of its layer used it."""
    fresh_batch: int = 0
    """The number of that batch, from 1 over all layers; 0 if it is not fresh."""


Trait = Literal[
    "inserted",
    "used",
    "uses",
    "uses_since_insertion",
    "active",
    "due",
    "next_use",
    "popularity",
    "pinned",
    "aged_uses",
    "fresh",
    "fresh_batch",
]

FUTURE = ("next_use", "popularity", "pinned")
"""Traits that only a recorded trace has."""

OF_ONE_CACHE = ("inserted", "uses_since_insertion", "pinned", "aged_uses", "fresh", "fresh_batch")
"""Traits for which each size of a cache is replayed by itself: most of them depend on the size."""


@dataclass(frozen=True)
class Criterion:
    """One trait to order experts by: the lowest value is evicted first, or the highest."""

    trait: Trait
    highest: bool = False


def lowest(trait: Trait) -> Criterion:
    """Experts with the lowest value of `trait` are evicted first."""
    return Criterion(trait)


def highest(trait: Trait) -> Criterion:
    """Experts with the highest value of `trait` are evicted first."""
    return Criterion(trait, highest=True)


@dataclass(frozen=True)
class Eviction:
    """A policy: `order` compares criteria one after another, and the lowest id breaks ties."""

    name: str
    order: tuple[Criterion, ...]
    may_bypass: bool = False
    """Whether an expert that was just loaded may be evicted at once, so that no other has to be."""

    @property
    def needs_future(self) -> bool:
        """Whether the policy needs future accesses, which only a recorded trace has."""
        return any(criterion.trait in FUTURE for criterion in self.order)

    @property
    def one_pass(self) -> bool:
        """Whether one pass gives the misses of all sizes, because a smaller cache holds a subset of what a larger one holds."""
        return not any(criterion.trait in OF_ONE_CACHE for criterion in self.order)

    @property
    def by_layer(self) -> bool:
        """Whether the order depends on which layers ran last."""
        return any(criterion.trait == "fresh" for criterion in self.order)

    @property
    def by_loading_only(self) -> bool:
        """Whether the time of loading alone orders the experts, after whether they are active at most: LIFO and FIFO."""
        *before, last = self.order
        return last.trait == "inserted" and before in ([], [lowest("active")]) and not self.may_bypass

    def priority(self, history: ExpertHistory) -> tuple[int, ...]:
        """The expert's place in the order; the expert with the lowest priority is evicted."""
        return tuple(
            -getattr(history, criterion.trait) if criterion.highest else getattr(history, criterion.trait)
            for criterion in self.order
        )
