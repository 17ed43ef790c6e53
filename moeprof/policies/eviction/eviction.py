"""What an eviction policy is: an order of the resident experts, by what is known of each; the first in it leaves.

An order is data, not code, so that the cache, the replay over many sizes and the expert store all read the same one.
"""

from dataclasses import dataclass
from typing import Literal

NEVER = 2**62
"""The next use of an expert that nobody will use again."""


@dataclass(slots=True)
class History:
    """What is known of one expert; times are numbers of accesses, from 0."""

    inserted: int = -1
    """When it was last loaded."""
    used: int = -1
    """When it was last used."""
    uses: int = 0
    """How often it was used so far, resident or not."""
    uses_since_insertion: int = 0
    """How often it was used since it was last loaded, that time included."""
    active: int = 0
    """1 where the batch in progress uses it."""
    due: int = 0
    """Its turn in the batch in progress, from 1; after that, its turn if the same batch came again; 0 where inactive."""
    next_use: int = NEVER
    """When it is used next; known only where the future is."""


Trait = Literal["inserted", "used", "uses", "uses_since_insertion", "active", "due", "next_use"]


@dataclass(frozen=True)
class Criterion:
    """One trait to order experts by: the lowest value leaves first, or the highest."""

    trait: Trait
    highest: bool = False


def lowest(trait: Trait) -> Criterion:
    """Who has the least of it leaves first."""
    return Criterion(trait)


def highest(trait: Trait) -> Criterion:
    """Who has the most of it leaves first."""
    return Criterion(trait, highest=True)


@dataclass(frozen=True)
class Eviction:
    """A policy: `order` compares criteria one after another, and the lowest id decides between equals."""

    name: str
    order: tuple[Criterion, ...]
    may_bypass: bool = False
    """Whether an expert that was just loaded may leave at once, so that nobody leaves for it."""

    @property
    def needs_future(self) -> bool:
        """Whether it can decide only over a recorded trace."""
        return any(criterion.trait == "next_use" for criterion in self.order)

    @property
    def by_insertion(self) -> bool:
        """Whether it asks when an expert was loaded; if not, a smaller cache holds part of what a larger one holds."""
        return any(criterion.trait in ("inserted", "uses_since_insertion") for criterion in self.order)

    def rank(self, history: History) -> tuple[int, ...]:
        """Its place in the order: the lowest leaves."""
        return tuple(
            -getattr(history, criterion.trait) if criterion.highest else getattr(history, criterion.trait)
            for criterion in self.order
        )
