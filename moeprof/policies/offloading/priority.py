"""Who leaves a full pool of slots: HOBBIT's weighted priority (arXiv 2411.01433), M2Cache's ATU (arXiv 2410.14740), FIFO and LRU.

A policy sees every use of a unit, and chooses a victim among the candidates that its caller allows. Units of all pools may share one
policy. Nothing is random, and the lowest unit breaks ties.
"""

from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass, field
from typing import NamedTuple, Protocol

from moeprof.records.errors import UsageError


class ExpertUnit(NamedTuple):
    """What a slot holds: one expert of one layer in one precision."""

    layer: int
    expert: int
    precision: str = "high"


class Replacement(Protocol):
    """Chooses victims; tokens are counted from 0 in each sequence."""

    def reset(self) -> None:
        """A new sequence begins; units stay where they are."""

    def touch(self, unit: ExpertUnit, token: int, was_high: bool = True) -> None:
        """A token uses a unit, which is resident or just loaded; `was_high`: the load rule asks for high precision."""

    def victim(self, candidates: Collection[ExpertUnit], layer: int, token: int) -> ExpertUnit:
        """The candidate that leaves while `layer` runs; ValueError without candidates."""


@dataclass
class Lru:
    """The least recently used unit leaves, whichever sequence used it."""

    _used: dict[ExpertUnit, int] = field(default_factory=dict)
    _uses: int = 0

    def reset(self) -> None:
        """Recency is that of all sequences."""

    def touch(self, unit: ExpertUnit, token: int, was_high: bool = True) -> None:
        """The unit is now the last that would leave."""
        self._uses += 1
        self._used[unit] = self._uses

    def victim(self, candidates: Collection[ExpertUnit], layer: int, token: int) -> ExpertUnit:
        """The least recently used; units that were never used leave first."""
        return min(candidates, key=lambda unit: (self._used.get(unit, 0), unit))


@dataclass
class Fifo:
    """The unit that was loaded first leaves, however often it was used since."""

    _loaded: dict[ExpertUnit, int] = field(default_factory=dict)
    _loads: int = 0

    def reset(self) -> None:
        """The order of loads is that of all sequences."""

    def touch(self, unit: ExpertUnit, token: int, was_high: bool = True) -> None:
        """The first use of a unit, or the first since it left, is its load."""
        if unit not in self._loaded:
            self._loads += 1
            self._loaded[unit] = self._loads

    def victim(self, candidates: Collection[ExpertUnit], layer: int, token: int) -> ExpertUnit:
        """The unit that was loaded first, which is then no longer known."""
        first = min(candidates, key=lambda unit: (self._loaded.get(unit, 0), unit))
        self._loaded.pop(first, None)
        return first


@dataclass
class Atu:
    """M2Cache's adjacent token update: between two steps a layer replaces only what differs, and keeps nothing for later steps."""

    _token: dict[ExpertUnit, int] = field(default_factory=dict)

    def reset(self) -> None:
        """No unit is of the current step."""
        self._token.clear()

    def touch(self, unit: ExpertUnit, token: int, was_high: bool = True) -> None:
        """The unit is of the step of this token."""
        self._token[unit] = token

    def leaving(self, candidates: Iterable[ExpertUnit], layer: int, token: int) -> list[ExpertUnit]:
        """The layer's units that this step does not use, in order; none of them is kept after the step."""
        return sorted(unit for unit in candidates if unit.layer == layer and self._token.get(unit) != token)

    def victim(self, candidates: Collection[ExpertUnit], layer: int, token: int) -> ExpertUnit:
        """A unit of the layer that this step does not use, else one of another layer, else one that this step uses."""
        return min(candidates, key=lambda unit: (self._token.get(unit) == token, unit.layer != layer, unit))


@dataclass(frozen=True)
class PriorityWeights:
    """The weights of the four parts of HOBBIT's priority; UsageError unless none is negative and their sum is 1."""

    lru: float = 0.0
    """Of the last use."""
    lfu: float = 0.0
    """Of the number of uses."""
    lhu: float = 0.0
    """Of the number of uses in high precision."""
    fld: float = 0.0
    """Of how soon the unit's layer runs."""

    def __post_init__(self) -> None:
        if not (all(weight >= 0 for weight in astuple(self)) and abs(sum(astuple(self)) - 1) < 1e-9):
            raise UsageError(
                f"eviction weights {self}: their sum is {sum(astuple(self)):.6g}",
                "Give four weights lru, lfu, lhu and fld, none negative, with sum 1.",
            )

    def __str__(self) -> str:
        return ",".join(f"{name}={weight:g}" for name, weight in zip(("lru", "lfu", "lhu", "fld"), astuple(self), strict=True))


@dataclass
class _Uses:
    last: int = 0
    """The number of tokens at the last use, 0 if there was none."""
    all: int = 0
    high: int = 0


@dataclass
class WeightedPriority:
    """HOBBIT's policy: the unit with the lowest priority leaves.

    lru x R/T + lfu x F/T + lhu x H/T + fld x (1 - distance / layers), with T the tokens of the sequence so far, R the number of the
    last token that used the expert, F its uses and H those in high precision, all in this sequence and in either precision, and the
    distance in layers from the current layer to the expert's, forwards and around.
    """

    weights: PriorityWeights
    num_layers: int
    _uses: dict[tuple[int, int], _Uses] = field(default_factory=dict)

    def reset(self) -> None:
        """Uses are counted for each sequence."""
        self._uses.clear()

    def touch(self, unit: ExpertUnit, token: int, was_high: bool = True) -> None:
        """Counts a use of the expert."""
        uses = self._uses.setdefault((unit.layer, unit.expert), _Uses())
        uses.last, uses.all, uses.high = token + 1, uses.all + 1, uses.high + was_high

    def priority(self, unit: ExpertUnit, layer: int, token: int) -> float:
        """From 0 to 1 if a token uses an expert once at most."""
        uses = self._uses.get((unit.layer, unit.expert), _Uses())
        weighted = self.weights.lru * uses.last + self.weights.lfu * uses.all + self.weights.lhu * uses.high
        distance = (unit.layer - layer + self.num_layers) % self.num_layers
        return weighted / (token + 1) + self.weights.fld * (1 - distance / self.num_layers)

    def victim(self, candidates: Collection[ExpertUnit], layer: int, token: int) -> ExpertUnit:
        """The candidate with the lowest priority."""
        return min(candidates, key=lambda unit: (self.priority(unit, layer, token), unit))
