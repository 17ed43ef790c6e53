"""How an offloading system keeps experts outside fast memory: the choices in which the published systems differ, and the systems.

Sources: HOBBIT arXiv 2411.01433, M2Cache 2410.14740, MoNDE 2405.18832, SiDA 2310.18859, InfMoE 2106.10715.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from moeprof.records.errors import UsageError
from moeprof.records.precision import PRECISIONS

EVICTIONS = ("lru", "fifo", "weighted", "atu")
FORESIGHTS = ("", "lookahead", "last-step", "most-used", "layers", "predictor")
MODES = ("exact", "bypass")
ORDERS = ("index", "johnson", "exact")
FIT = "fit"
"""In place of weights: those that load least."""


@dataclass(frozen=True)
class Offloading:
    """The choices of one system; the defaults load experts on demand at the model's own precision, and evict the least recent."""

    name: str
    """Of the preset."""
    per_layer: bool = True
    """Whether each layer has slots of its own, or the layers of a stack share one pool."""
    low: tuple[str, ...] = ()
    """Packed precisions beside the model's own, the highest first."""
    shares: tuple[float, ...] = (1.0,)
    """How the bytes of the slots are divided among the precisions, the model's own first."""
    t1: float = 1.0
    """HOBBIT: up to this unimportance a missing expert is loaded at the model's own precision."""
    t2: float = 1.0
    """HOBBIT: up to this unimportance it is loaded in low precision; above it is skipped."""
    mix: tuple[float, ...] = ()
    """M2Cache: shares of a step's experts, by rank of their weight, that are used at each precision."""
    eviction: str = "lru"
    """Who leaves."""
    weights: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
    """HOBBIT: what recency, frequency, high-precision uses and distance of layers weigh in the eviction `weighted`; `fit` (none) in a
    replay, which fits them."""
    foresight: str = ""
    """What is prefetched: nothing, what the routers of the next layers say, the last step's experts, the most used, whole layers, what a
    fitted predictor says before the first layer."""
    depth: int = 1
    """How many layers ahead."""
    preload: int = 0
    """M2Cache: how many layers ahead all experts of a layer are read into host memory; 0 for not at all."""
    predicted: int = 3
    """SiDA: experts that the predictor names per token and layer."""
    mode: str = "exact"
    """SiDA: whether the routers decide (`exact`), or the predictor in their place (`bypass`)."""
    shuffled: bool = False
    """Whether predicted ids are permuted: the placebo of a prediction."""
    reversed: bool = False
    """Whether the best choice of a token is taken for its worst: the placebo of `t1` and `t2`, and of `mix`."""
    order: str = "index"
    """In which order the missing experts of a step are loaded and computed."""

    cold: bool = False
    """MoNDE: whether a second process computes the experts that are not worth moving, where their weights are."""

    def __post_init__(self) -> None:
        for trouble, remedy in self.troubles():
            raise UsageError(f"preset {self.name}: {trouble}", remedy)

    def troubles(self) -> list[tuple[str, str]]:
        """What is wrong with the choices, each with its remedy."""
        found = []
        for key, allowed in {"eviction": EVICTIONS, "foresight": FORESIGHTS, "order": ORDERS, "mode": MODES}.items():
            if (value := getattr(self, key)) not in allowed:
                found.append((f"{key}={value} is not known", f"Choose from: {', '.join(filter(None, allowed))}."))
        if unknown := [one for one in self.low if one not in PRECISIONS]:
            found.append((f"low={unknown[0]} is not a packed precision", f"Choose from: {', '.join(PRECISIONS)}."))
        numbers = {"shares": self.shares, "mix": self.mix, "weights": self.weights, "t1": (self.t1,), "t2": (self.t2,)}
        for key, values in numbers.items():
            if any(not 0 <= value <= 1 for value in values):
                found.append((f"{key} has a value outside 0 to 1", f"Give {key} values from 0 to 1."))
        if self.t2 < self.t1:
            found.append((f"t2={self.t2:g} is smaller than t1={self.t1:g}", f"Give t2 a value from {self.t1:g} to 1."))
        for key in ("shares", "mix"):
            values = getattr(self, key)
            if values and (len(values) != 1 + len(self.low) or not math.isclose(sum(values), 1)):
                what = (
                    f"{key}={':'.join(f'{value:g}' for value in values)} does not divide 1 among {1 + len(self.low)} precisions"
                )
                found.append((what, f"Give a share for the model's own precision and for each of low={':'.join(self.low)}."))
        if self.fits and (self.eviction != "weighted" or self.per_layer or len(self.low) != 1):
            what = "weights=fit is for the eviction weighted, one pool of all layers, and one low precision"
            found.append((what, "Use the preset hobbit, or give weights."))
        if self.weights and (len(self.weights) != 4 or not math.isclose(sum(self.weights), 1)):
            found.append(
                ("weights are not four that add up to 1", "Give recency:frequency:high-precision uses:distance of layers.")
            )
        if self.t1 < 1 and not self.low:
            found.append((f"t1={self.t1:g} needs a low precision", "Give low=int4, or t1=1."))
        if self.reversed and not self.weighs:
            found.append(("reversed=yes changes nothing: no weights decide", "Give t1, or a mix, or leave it out."))
        if self.cold and not self.full_precision:
            found.append(("cold experts have the model's own precision only", "Use t1=1 and no mix, or cold=no."))
        if not 0 <= self.preload <= 1000:
            found.append((f"preload={self.preload} is not a number of layers", "Give a number from 0 to 1000."))
        if not 1 <= self.depth <= 1000:
            found.append((f"depth={self.depth} is not a number of layers", "Give a number from 1 to 1000."))
        if self.predicted < 1:
            found.append((f"predicted={self.predicted} is not a number of experts", "Give a number of at least 1."))
        if self.bypass and self.foresight != "predictor":
            given = f"foresight={self.foresight} is" if self.foresight else "there is"
            what = f"mode=bypass: a predictor decides in place of the routers, and {given} no predictor"
            found.append((what, "Use foresight=predictor, or mode=exact."))
        return found

    @property
    def fits(self) -> bool:
        """Whether the weights of the priority are yet to be fitted."""
        return not self.weights

    @property
    def bypass(self) -> bool:
        """Whether a predictor decides in place of the routers."""
        return self.mode == "bypass"

    @property
    def full_precision(self) -> bool:
        """Whether every expert is computed at the model's own precision."""
        return not self.mix and self.t1 == 1

    @property
    def lossless(self) -> bool:
        """Whether the experts that the routers choose are computed, all at the model's own precision."""
        return self.full_precision and not self.bypass

    def unmet(self, name: str, top_k: int) -> str:
        """Why the load rule does nothing with so many experts per token, under the name of the system; empty if it does."""
        if top_k > 1 or self.t1 == 1:
            return ""
        return (
            f"premise not met, {name}: with one expert per token its rank is always 0, so that every expert is loaded at the model's "
            "own precision, and the load rule changes nothing"
        )

    @property
    def weighs(self) -> bool:
        """Whether it decides by the weights that routers give to experts."""
        return bool(self.mix) or self.t1 < 1

    @property
    def text(self) -> str:
        """All choices, as `parsed` reads them."""
        return f"{self.name}:{','.join(f'{key}={written(value)}' for key, value in self.choices.items())}"

    @property
    def choices(self) -> dict[str, Any]:
        """The values by name as users write them."""
        return {field.name.replace("_", "-"): getattr(self, field.name) for field in fields(self) if field.name != "name"}


PRESETS: dict[str, Offloading] = {
    preset.name: preset
    for preset in (
        Offloading("on-demand"),
        Offloading(
            "hobbit",
            per_layer=False,
            low=("int4",),
            shares=(0.75, 0.25),
            t1=0.6,
            t2=0.9,
            eviction="weighted",
            foresight="lookahead",
            depth=2,
        ),
        Offloading("m2cache", low=("int8", "int4"), shares=(0.5, 0.25, 0.25), mix=(0.25, 0.25, 0.5), eviction="atu", preload=2),
        Offloading("monde", cold=True),
        Offloading("sida", eviction="fifo", foresight="predictor", depth=1000),
        Offloading("infmoe", eviction="fifo", order="johnson"),
    )
}
"""The systems by name, with the constants that their papers give; `on-demand` is what they are compared with."""


PAPER = "paper"
"""Expert buffering as its paper describes it (arXiv 2303.06182): beside the presets, with a store and an eviction policy of its own."""


def system_of(text: str) -> Offloading | None:
    """A preset as `parsed` reads it; None for `paper`."""
    return None if text == PAPER else parsed(text)


def parsed(text: str) -> Offloading:
    """A preset, `NAME` or `NAME:KEY=VALUE,...`; UsageError if it is not known or a value is not possible."""
    name, _, settings = text.partition(":")
    if name not in PRESETS:
        raise UsageError(f"preset {name}: not known", f"Choose from: {', '.join(PRESETS)}.")
    changes = {}
    known = PRESETS[name].choices
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        value = "" if (key, value) == ("weights", FIT) else value
        if key not in known:
            raise UsageError(f"preset {name}: it has no setting {key!r}", f"Choose from: {', '.join(known)}.")
        try:
            changes[key.replace("-", "_")] = READERS[type(known[key])](value)
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"preset {name}: {key} cannot be {value!r}", f"It is {written(known[key])!r} by default."
            ) from error
    return replace(PRESETS[name], **changes)


def written(value: Any) -> str:
    """One value as text: parts between colons, fractions in full."""
    if isinstance(value, tuple):
        return ":".join(map(written, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def parts(text: str) -> tuple[Any, ...]:
    """Numbers or names between colons; nothing if the text is empty."""
    return tuple(float(part) if part[0].isdigit() or part[0] == "." else part for part in text.split(":")) if text else ()


READERS: Mapping[type, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "yes": True, "false": False, "no": False}[text.lower()],
    int: int,
    float: float,
    str: str,
    tuple: parts,
}
