"""The cache slots of a recipe's model, and the tier from which they are filled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from moeprof.models.build import make_model
from moeprof.models.checkpoint import opened
from moeprof.models.initialise import draw
from moeprof.moe.buffers import Buffers, packed_form
from moeprof.moe.far_side import FarFFN
from moeprof.moe.layer import MoELayer
from moeprof.moe.sparse_layer import SparseLayer
from moeprof.parallel.group import ALONE, Group
from moeprof.records.precision import Precision
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.recipe.weights import weights_hash
from moeprof.store.backing import Contents, LayerContents, backing
from moeprof.store.entry import EntryLayout
from moeprof.store.offload import Form
from moeprof.store.precision import packed_contents, packing
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import Fill, HostTier, Tier

HeldExperts = Mapping[str, Sequence[int]]
"""By layer, the logical ids of the experts that a rank holds, in physical order."""


class RecipeBuffers(Buffers):
    """The cache slots of all buffered variants of a recipe's model."""

    def __init__(self, model: nn.Module, recipe: Recipe, variants: Sequence[Variant], group: Group = ALONE) -> None:
        """Writes the expert file if it is absent; on a GPU a rank's experts are pinned in host memory instead."""
        self.recipe, self.contiguous = recipe, contiguous(recipe, group)
        layers = list(dict.fromkeys(layer for variant in variants for layer in recipe.buffered_layers(variant)))
        self.contents = contents = contents_of(recipe, layers)
        tier, device = tier_of(recipe, contents), recipe.measure.device
        super().__init__(model, recipe.buffered_layers, contents.layouts, tier, partial(filling, recipe), device)

    def held(self, layer: SparseLayer, variant: Variant) -> Sequence[int]:
        placed = layer.placements.get(variant) if isinstance(layer, MoELayer) else None
        return self.contiguous[layer.name] if placed is None else placed.held

    def packed(self, precision: Precision, layers: Sequence[SparseLayer]) -> Form:
        """From a file of packed experts, which is written if it is absent; on a GPU from host memory."""
        if self.recipe.measure.device == "cuda":
            return super().packed(precision, layers)
        contents = packed_contents(self.contents, precision)
        with self.filling() as fill:
            tier = backing(contents, packing(fill, self.layouts, precision))
        return packed_form([contents.layouts[layer.name] for layer in layers], tier, precision)

    def far_ffn(self) -> FarFFN:
        return FarFFN(self.recipe.own_model.ffn, self.recipe.own_model.activation)


def contiguous(recipe: Recipe, group: Group) -> HeldExperts:
    """The E/N consecutive experts that contiguous placement gives this rank, for every layer."""
    share = recipe.model.experts // group.size
    mine = range(group.rank * share, (group.rank + 1) * share)
    return dict.fromkeys(recipe.model.moe_layers_of("all"), mine)


def contents_of(recipe: Recipe, layers: Sequence[str]) -> Contents:
    """The header of the expert file of a model."""
    layout = EntryLayout(recipe.own_model.ffn_shapes, getattr(torch, recipe.model.dtype))
    layer = LayerContents.of(layout, recipe.model.experts)
    return Contents(weights_hash=weights_hash(recipe), layers=dict.fromkeys(layers, layer))


def tier_of(recipe: Recipe, contents: Contents) -> Tier:
    """The tier behind the cache slots; in host memory it is filled when a layer is fitted."""
    if recipe.measure.device == "cuda":
        return HostTier({}, pinned=True)
    with filling(recipe) as fill:
        return backing(contents, fill)


@contextmanager
def filling(recipe: Recipe) -> Iterator[Fill]:
    """A function that writes the weights of single experts, as in the whole model, which is never in memory."""
    names = {
        module.name: f"{name}.experts" for name, module in make_model(recipe).named_modules() if isinstance(module, MoELayer)
    }
    with ExitStack() as stack, torch.no_grad():
        if recipe.model.checkpoint:
            read = stack.enter_context(opened(Path(recipe.model.checkpoint))).read
            yield by_parameter(names, lambda name, expert, view: read(name, expert, view[None]))
        else:
            seed = recipe.measure.seed
            yield by_parameter(names, lambda name, expert, view: draw(name, view, seed, expert * view.numel()))


def by_parameter(names: Mapping[str, str], fill_one: Callable[[str, int, Tensor], object]) -> Fill:
    """A function that fills an expert's tensors one by one."""

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        for tensor, view in into.items():
            fill_one(f"{names[layer]}.{tensor}", expert, view)

    return fill
