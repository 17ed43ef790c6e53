"""The buffered stores of a model's layers, and the tier from which their cache slots are filled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from moeprof.models.build import make_model
from moeprof.models.checkpoint import opened
from moeprof.models.initialise import draw
from moeprof.moe.layer import MoELayer, moe_layers
from moeprof.parallel.group import ALONE, Group
from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.recipe.weights import weights_hash
from moeprof.store.backing import Contents, LayerContents, backing
from moeprof.store.buffered import BufferedStore
from moeprof.store.entry import EntryLayout
from moeprof.store.ledger import Ledger
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import Fill, HostTier, Tier

HeldExperts = Mapping[str, Sequence[int]]
"""By layer, the logical ids of the experts that a rank holds, in physical order."""


class Buffers:
    """The cache slots of all buffered variants of one model, which share one ledger and tier."""

    def __init__(self, model: nn.Module, recipe: Recipe, variants: Sequence[Variant], group: Group = ALONE) -> None:
        """Writes the expert file if it is absent; on a GPU a rank's experts are pinned in host memory instead."""
        self.model, self.recipe = model, recipe
        self.held = contiguous(recipe, group)
        layers = list(dict.fromkeys(layer for variant in variants for layer in recipe.buffered_layers(variant)))
        contents = contents_of(recipe, layers)
        self.layouts, self.tier = contents.layouts, tier_of(recipe, contents)
        self.ledger = Ledger(self.tier, recipe.measure.device)

    def fit(self, variant: Variant, slots: int | None = None) -> None:
        """Gives the layers of a buffered variant empty stores for the experts that the variant has on this rank.

        `slots` replaces the variant's own number until it is fitted again.
        """
        for layer in moe_layers(self.model):
            if layer.name in self.recipe.buffered_layers(variant):
                placed = layer.placements.get(variant)
                self.fit_layer(layer, variant, self.held[layer.name] if placed is None else placed.held, slots)

    def fit_layer(self, layer: MoELayer, variant: Variant, held: Sequence[int], slots: int | None = None) -> None:
        """Gives one layer its store; `held` are its experts on this rank, which are all loaded from the tier."""
        if isinstance(self.tier, HostTier):
            with filling(self.recipe) as fill:
                self.tier.add(self.layouts[layer.name], [(layer.name, expert) for expert in held], fill)
        layer.stores[variant] = BufferedStore(
            layer.name, held, slots or variant.slots, make_eviction(variant.eviction), self.layouts[layer.name], self.ledger
        )

    def close(self) -> None:
        """Stops the ledger after its queued loads."""
        self.ledger.close()


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
            read = stack.enter_context(opened(Path(recipe.model.checkpoint))).get_slice
            yield by_parameter(names, lambda name, expert, view: view.copy_(read(name)[expert : expert + 1][0]))
        else:
            seed = recipe.measure.seed
            yield by_parameter(names, lambda name, expert, view: draw(name, view, seed, expert * view.numel()))


def by_parameter(names: Mapping[str, str], fill_one: Callable[[str, int, Tensor], object]) -> Fill:
    """A function that fills an expert's tensors one by one."""

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        for tensor, view in into.items():
            fill_one(f"{names[layer]}.{tensor}", expert, view)

    return fill


def buffered_stores(model: nn.Module) -> list[BufferedStore]:
    """The buffered stores of the variant that the model runs."""
    return [layer.store for layer in moe_layers(model) if isinstance(layer.store, BufferedStore)]


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Restores the contents of all cache slots after the block."""
    with ExitStack() as stack:
        for store in buffered_stores(model):
            stack.enter_context(store.kept())
        yield
