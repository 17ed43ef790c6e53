"""The parts of an offloading system by its choices: slots, replacement, and the foresight that needs no model."""

from collections.abc import Callable, Mapping, Sequence

from moeprof.policies.offloading.foresight import Foresight, LastStep, MostUsed, Shuffled, WholeLayers
from moeprof.policies.offloading.planner import HIGH, Planner
from moeprof.policies.offloading.priority import Atu, Fifo, Lru, PriorityWeights, Replacement, WeightedPriority
from moeprof.records.errors import UsageError
from moeprof.records.recipe.offloading import Offloading

LOOKAHEAD = "lookahead"
"""The foresight that asks the routers of the next layers."""


def planner_of(choice: Offloading, slots: int, num_layers: int, entry_bytes: Mapping[str, int], most: int) -> Planner:
    """Empty slots with the bytes of `slots` high-precision entries per layer; arguments and UsageError as in `capacities`."""
    found = capacities(choice, slots, num_layers, entry_bytes, most)
    return Planner(num_layers, found, replacement_of(choice, num_layers), per_layer=choice.per_layer)


def replacement_of(choice: Offloading, num_layers: int) -> Replacement:
    """Who leaves a full pool."""
    kinds: dict[str, Callable[[], Replacement]] = {
        "lru": Lru,
        "fifo": Fifo,
        "atu": Atu,
        "weighted": lambda: WeightedPriority(PriorityWeights(*choice.weights), num_layers),
    }
    return kinds[choice.eviction]()


def routed_foresight(choice: Offloading, sizes: Sequence[int], modelled: Foresight | None = None) -> Foresight | None:
    """What predicts the experts of later layers, of `sizes` experts; None if nothing does.

    `modelled` is one that asks a model, and takes the place of others.
    """
    if not choice.foresight:
        return None
    kinds: dict[str, Callable[[], Foresight]] = {
        "last-step": lambda: LastStep(len(sizes), choice.depth),
        "most-used": lambda: MostUsed(len(sizes), choice.depth),
        "layers": lambda: WholeLayers(len(sizes), choice.depth, sizes, (HIGH, *choice.low)[-1]),
    }
    found = modelled or kinds[choice.foresight]()
    return Shuffled(found, sizes) if choice.shuffled else found


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
