"""The cache slots of a model from elsewhere, and the tiers that they are filled from: its parameters, its shards, or a file of experts."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from moeprof.huggingface.layer import OWN, ExpertsLayer
from moeprof.huggingface.shards import ExpertShards
from moeprof.moe.buffers import BufferedLayers, Buffers
from moeprof.moe.sparse_layer import SparseLayer, sparse_layers
from moeprof.records.recipe.variant import Variant
from moeprof.store.backing import Contents, LayerContents, backing
from moeprof.store.entry import EntryLayout
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import Fill, FillTier, HostTier, Tier


class ModelBuffers(Buffers):
    """The cache slots of all buffered variants of a model with `ExpertsLayer`s."""

    def __init__(
        self, model: nn.Module, buffered: BufferedLayers, fill: Fill, *, device: str = "cpu", file_hash: str = ""
    ) -> None:
        """Experts are read by `fill` when they are missed; on a GPU they are pinned in host memory first.

        With `file_hash`, that of the weights, they are written once to an expert file and read from there.
        """
        layouts = {layer.name: EntryLayout.of(layer.weights) for layer in sparse_layers(model)}
        tier = self.tier_of(model, layouts, fill, device, file_hash)
        super().__init__(model, buffered, layouts, tier, lambda: nullcontext(fill), device)

    @staticmethod
    def tier_of(model: nn.Module, layouts: dict[str, EntryLayout], fill: Fill, device: str, file_hash: str) -> Tier:
        """The tier behind the cache slots."""
        if device == "cuda":
            return HostTier({}, pinned=True)
        if not file_hash:
            return FillTier(layouts, fill)
        sizes = {layer.name: layer.weights.num_experts for layer in sparse_layers(model)}
        layers = {name: LayerContents.of(layout, sizes[name]) for name, layout in layouts.items()}
        return backing(Contents(weights_hash=file_hash, layers=layers), fill)

    def fit_layer(self, layer: SparseLayer, variant: Variant, held: Sequence[int], slots: int | None = None) -> None:
        """As for other models; a layer with fewer experts than slots has a slot for each. UsageError if slots cannot work."""
        if isinstance(layer, ExpertsLayer) and variant.dispatch == OWN:
            layer.require_sentinels()
        super().fit_layer(layer, variant, held, min(slots or variant.slots, len(held)))


def from_parameters(model: nn.Module) -> Fill:
    """Experts from the parameters of a loaded model, which stay the only copy beside the slots."""
    layers = {layer.name: layer for layer in sparse_layers(model)}

    @torch.no_grad()
    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        for name, whole in layers[layer].weights.items():
            into[name].copy_(whole[expert])

    return fill


class FromShards:
    """Experts from the shards of a checkpoint, for a model whose own experts were never loaded; a `Fill`."""

    def __init__(self, model: nn.Module, shards: ExpertShards) -> None:
        self.shards, self.whole = shards, dict[str, Tensor]()
        self.layers = {layer.name: layer for layer in sparse_layers(model) if isinstance(layer, ExpertsLayer)}
        reasons = [shards.why_not(path) for layer in self.layers.values() for path in layer.parameter_paths]
        self.why_file = next(filter(None, reasons), "")
        """Why an expert file should be written and read in place of the shards; empty if single experts can be read from them."""

    def __call__(self, layer: str, expert: int, into: ExpertWeights) -> None:
        for name, view in into.items():
            path, row = self.layers[layer].place(name, expert)
            if self.shards.why_not(path):
                whole = self.made(path, set(self.layers[layer].parameter_paths))
                view.copy_(whole if row is None else whole[row])
            else:
                self.shards.read(path, row, view)

    def made(self, path: str, of_layer: set[str]) -> Tensor:
        """A whole parameter, which is made once as long as the experts of one layer follow each other."""
        self.whole = {name: kept for name, kept in self.whole.items() if name in of_layer}
        if path not in self.whole:
            self.whole[path] = self.shards.whole(path)
        return self.whole[path]
