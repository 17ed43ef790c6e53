"""Parses `[routing] source`: the model's router, or forced routing decisions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMS = "model, uniform[:sticky=P][,seed=N], zipf:S[,sorted][,sticky=P][,seed=N], trace:PATH"


@dataclass(frozen=True)
class RoutingSource:
    """`kind` is `model`, `uniform`, `zipf` or `trace`."""

    kind: str
    exponent: float = 0.0
    """The r-th hottest expert is chosen with a weight of 1 / r^exponent; 0 is uniform."""
    sorted: bool = False
    """Whether expert ids are in order of heat; otherwise each layer has a seeded permutation."""
    sticky: float = 0.0
    """Probability that a token keeps the experts of the previous token of its sequence."""
    seed: int = 0
    path: Path | None = None


def parse_routing_source(text: str) -> RoutingSource:
    """The parsed source; ValueError if `text` has none of the forms."""
    kind, _, rest = text.partition(":")
    try:
        if kind == "trace" and rest:
            return RoutingSource("trace", path=Path(rest))
        if kind == "model" and not rest:
            return RoutingSource("model")
        if kind == "uniform":
            return RoutingSource("uniform", **options(rest.split(",") if rest else [], {"sticky", "seed"}))
        if kind == "zipf":
            exponent, *words = rest.split(",")
            if not 0 <= float(exponent) < float("inf"):
                raise ValueError(exponent)
            return RoutingSource("zipf", float(exponent), **options(words, {"sorted", "sticky", "seed"}))
    except ValueError as error:
        raise ValueError(f"routing.source {text!r}: must be one of {FORMS}") from error
    raise ValueError(f"routing.source {text!r}: must be one of {FORMS}")


def options(words: list[str], known: set[str]) -> dict[str, Any]:
    """The options as keyword arguments of a RoutingSource; ValueError if one is unknown, repeated or out of range."""
    found: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in known or key in found:
            raise ValueError(word)
        if key == "sorted":
            if value:
                raise ValueError(word)
            found[key] = True
        else:
            found[key] = float(value) if key == "sticky" else int(value)
    if not 0 <= found.get("sticky", 0) <= 1 or found.get("seed", 0) < 0:
        raise ValueError(f"{words}")
    return found
