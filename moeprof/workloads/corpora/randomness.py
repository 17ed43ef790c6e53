"""Random integers that are the same on every machine and every Python; `random` promises that for no method we need."""

from collections.abc import Sequence
from typing import Literal, TypeVar

Split = Literal["train", "heldout"]
Item = TypeVar("Item")

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15
SPENT = 2**24  # what is left of a draw below this would favour small numbers by more than one in 10,000


def mix64(value: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014): a bijection of 64-bit integers."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def seed_of(*key: str | int) -> int:
    """A 64-bit seed for a name such as ("lm", "prose", "train", 17); Python's own hash() changes from run to run."""
    seed = 0
    for byte in "/".join(map(str, key)).encode():
        seed = mix64(seed + byte + GAMMA & MASK)
    return seed


class RandomStream:
    """A splitmix64 generator whose every 64-bit draw is spent on several small choices, digit by digit in mixed radix."""

    __slots__ = ("_pool", "_state")

    def __init__(self, seed: int) -> None:
        self._state = seed
        self._pool = 0

    def next64(self) -> int:
        """The next draw, uniform over 64 bits."""
        self._state = self._state + GAMMA & MASK
        return mix64(self._state)

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` - 1, `bound` at most some thousands."""
        if self._pool < SPENT:
            self._pool = self.next64()
        self._pool, value = divmod(self._pool, bound)
        return value

    def between(self, lowest: int, highest: int) -> int:
        """A whole number, both ends included."""
        return lowest + self.below(highest - lowest + 1)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of `items`, each as likely as the others."""
        return items[self.below(len(items))]

    def percent(self, chance: int) -> bool:
        """True `chance` times in a hundred."""
        return self.below(100) < chance

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different items in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(count)]


def common_first(items: Sequence[Item]) -> tuple[Item, ...]:
    """`items` with the first half twice, so that a pick knows common and rare ones."""
    return (*items, *items[: -(-len(items) // 2)])
