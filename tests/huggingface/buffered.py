"""Small models whose experts are in slots, and what they compute."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprof.huggingface.buffers import ModelBuffers, from_parameters
from moeprof.huggingface.layer import OWN, ExpertsLayer, experts_layers
from moeprof.huggingface.sites import find_sites
from moeprof.moe.layer import use_variant
from moeprof.moe.sparse_layer import sparse_layers
from moeprof.records.recipe.variant import Variant
from moeprof.store.tier import Fill
from tests.huggingface.forward import forward

SLOTS = 3
OWN_RESIDENT = Variant(OWN)


def in_slots(slots: int = SLOTS, eviction: str = "inactive-first+lifo", dispatch: str = OWN) -> Variant:
    """A variant with all layers in slots."""
    return Variant(dispatch, store="buffered", slots=slots, eviction=eviction, buffered="all")


def layers_of(model: nn.Module, capacity_fraction: float | None = None) -> nn.ModuleList:
    """The layers of experts of a model."""
    return experts_layers(find_sites(model), capacity_fraction)


@contextmanager
def buffers(layers: nn.ModuleList, fill: Fill | None = None, file_hash: str = "") -> Iterator[ModelBuffers]:
    """Slots for all layers, from their own parameters or another source."""
    names = [layer.name for layer in sparse_layers(layers)]
    opened = ModelBuffers(layers, lambda _: names, fill or from_parameters(layers), file_hash=file_hash)
    yield opened
    opened.close()


def under(variant: Variant, model: PreTrainedModel, layers: nn.ModuleList) -> Tensor:
    """The logits of a model under a variant; the model is then as it was."""
    use_variant(layers, variant)
    try:
        return forward(model)
    finally:
        use_variant(layers, None)


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


def first(layers: nn.ModuleList) -> ExpertsLayer:
    """The first of the layers."""
    layer = layers[0]
    assert isinstance(layer, ExpertsLayer)
    return layer
