"""Counts tokens whose outputs are NaN or infinite, in every MoE layer and at the end of the model.

T rows of a step, D values of a row: the width, or the vocabulary.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from moeprof.huggingface.model import HuggingFaceModel
from moeprof.instrument.hooks import hooked
from moeprof.instrument.step import Step
from moeprof.moe.layer import MoELayer, moe_layers


def finite(y_TD: Tensor) -> Tensor:
    """Which rows have neither NaN nor infinity, (T,); NaN passes through both reductions, which copy nothing."""
    return y_TD.amin(dim=1).isfinite() & y_TD.amax(dim=1).isfinite()


class FiniteCheck:
    """Counts of one variant's play; they stay on the device until `rows` reads them."""

    def __init__(self) -> None:
        self.counts: list[tuple[str, Step, Tensor]] = []

    def watching(self, model: nn.Module) -> AbstractContextManager[None]:
        """Adds the outputs of every MoE layer that the model runs in the block."""
        if isinstance(model, HuggingFaceModel):
            return model.outputs_observed(self.add)
        return hooked(moe_layers(model), self.layer)

    def layer(self, layer: MoELayer, inputs: tuple[Tensor, Step], y_TD: Tensor) -> None:
        """Adds the outputs of an MoE layer; a forward hook."""
        self.add(layer.name, inputs[1], y_TD)

    def add(self, layer: str, step: Step, y_TD: Tensor) -> None:
        """Adds the outputs of a step, of the whole model if `layer` is empty; padding is left out."""
        broken_T = ~finite(y_TD)
        self.counts.append((layer, step, (broken_T if step.real_T is None else broken_T & step.real_T).sum()))

    def rows(self, phase: str, label: str) -> Iterator[dict[str, Any]]:
        """Rows of the raw table `not_finite`."""
        for layer, step, count in self.counts:
            if tokens := int(count):
                cells = {"phase": phase, "variant": label, "domain": step.domain, "layer": layer}
                yield cells | {"step": step.index, "tokens": tokens}
