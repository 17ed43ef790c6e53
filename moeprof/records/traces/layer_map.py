"""The layers of a model that have experts, so that the rows of a foreign trace get their absolute numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.records.errors import OptionError
from moeprof.records.limits import MAX_LAYERS

HOW = "state them by --model-config CONFIG or --layers MAP"
CORRECT = "Correct --layers or --model-config, which state the layers that have experts."


@dataclass(frozen=True)
class LayerMap:
    """MoE layers by absolute number, ascending."""

    moe_layers: tuple[int, ...]
    num_layers: int | None = None
    """All layers of the model, dense ones too; None if unknown."""

    @classmethod
    def parse(cls, text: str) -> "LayerMap":
        """The layers in a list such as `1-47` or `0,2,4-6`; ValueError if it is none."""
        found: list[int] = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
            if not match:
                raise ValueError(f"{part.strip()[:24]!r} is neither a layer nor a range of layers")
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last < MAX_LAYERS:
                raise ValueError(f"{part.strip()} is not a range of layers below {MAX_LAYERS:,}")
            found += range(first, last + 1)
        if len(set(found)) < len(found):
            raise ValueError("a layer occurs twice")
        return cls(tuple(sorted(found)))

    def rows(self, count: int) -> "RowMap":
        """Which rows of an array with `count` layers have experts, and their numbers; ValueError if the count fits neither.

        An array has either a row per MoE layer, or a row per layer of the model. Without `num_layers` the model has at least the
        layers up to the last MoE layer, and any number of dense ones behind it.
        """
        if count == len(self.moe_layers):
            return RowMap(tuple(range(count)), self.moe_layers)
        if count == self.num_layers or (self.num_layers is None and count > max(self.moe_layers)):
            return RowMap(self.moe_layers, self.moe_layers)
        all_layers = f" of {self.num_layers}" if self.num_layers is not None else ""
        raise OptionError(f"it has {count} layers, but the model has {len(self.moe_layers)} MoE layers{all_layers}", CORRECT)


@dataclass(frozen=True)
class RowMap:
    """The rows of an array that are MoE layers, and the absolute number of each."""

    rows: tuple[int, ...]
    layers: tuple[int, ...]


def check_numbers(layers: Sequence[int], stated: LayerMap | None) -> None:
    """ValueError if one of a trace's absolute layers has no experts by the stated ones."""
    if stated is not None and (foreign := sorted({*layers} - {*stated.moe_layers})):
        raise OptionError(f"layer {foreign[0]} has choices, but no experts by the stated layers", CORRECT)
