"""A model's experts behind slots: what they are filled from, where they lie, and the stores of its layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from moeprof.models.build import make_model, weights_hash
from moeprof.models.checkpoint import opened
from moeprof.models.initialise import draw
from moeprof.moe.layer import MoELayer, moe_layers
from moeprof.parallel.group import ALONE, Group
from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.recipe import Recipe
from moeprof.records.variant import Variant
from moeprof.store.backing import Contents, backing
from moeprof.store.buffered import BufferedStore
from moeprof.store.ledger import Ledger
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import Fill, HostTier, Tier

WEIGHTS = ("w1", "b1", "w2", "b2")
"""Names of an expert's parameters, in the order of ExpertWeights."""

Held = Mapping[str, Sequence[int]]
"""By layer, the logical numbers of the experts that a rank holds, in physical order."""


class Buffers:
    """The slots of all buffered variants of one model, which share a ledger and what lies behind it."""

    def __init__(self, model: nn.Module, recipe: Recipe, variants: Sequence[Variant], group: Group = ALONE) -> None:
        """Writes the file of experts where there is none; on a GPU all of a rank's experts are pinned in memory instead."""
        self.model, self.recipe = model, recipe
        self.held = contiguous(recipe, group)
        layers = list(dict.fromkeys(layer for variant in variants for layer in recipe.buffered_layers(variant)))
        self.ledger = Ledger(tier_of(recipe, layers, self.held), recipe.measure.device)

    def fit(self, variant: Variant, held: Held | None = None) -> None:
        """Gives the layers of a buffered variant their stores, empty; `held` where a placement moved experts."""
        names, whole = self.recipe.buffered_layers(variant), held or self.held
        eviction, layout = make_eviction(variant.eviction), contents_of(self.recipe, names).layout
        for layer in moe_layers(self.model):
            if layer.name in names:
                layer.stores[variant] = BufferedStore(
                    layer.name, whole[layer.name], variant.slots, eviction, layout, self.ledger
                )

    def drop(self, variant: Variant) -> None:
        """Gives its slots back."""
        for layer in moe_layers(self.model):
            layer.stores.pop(variant, None)

    def close(self) -> None:
        """No expert is moved any longer."""
        self.ledger.close()


def contiguous(recipe: Recipe, group: Group) -> Held:
    """E/N neighbours on every rank."""
    share = recipe.model.experts // group.size
    mine = range(group.rank * share, (group.rank + 1) * share)
    return dict.fromkeys(recipe.model.moe_layers_of("all"), mine)


def contents_of(recipe: Recipe, layers: Sequence[str]) -> Contents:
    """What the file of a model's experts holds."""
    return Contents(
        weights_hash=weights_hash(recipe),
        dim=recipe.model.dim,
        ffn_dim=recipe.model.ffn_dim,
        dtype=recipe.model.dtype,
        num_experts=recipe.model.experts,
        layers=list(layers),
    )


def tier_of(recipe: Recipe, layers: Sequence[str], held: Held) -> Tier:
    """Where the experts of these layers lie behind the slots."""
    contents = contents_of(recipe, layers)
    with filling(recipe) as fill:
        if recipe.measure.device == "cpu":
            return backing(contents, fill)
        keys = [(layer, expert) for layer in layers for expert in held[layer]]
        return HostTier.filled(contents.layout, keys, fill, pinned=True)


@contextmanager
def filling(recipe: Recipe) -> Iterator[Fill]:
    """Gives one expert after another the weights that the whole model has, which is never in memory."""
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
    """An expert's weights, one parameter after another."""

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        for weight, view in zip(WEIGHTS, into, strict=True):
            fill_one(f"{names[layer]}.{weight}", expert, view)

    return fill


def buffered_stores(model: nn.Module) -> list[BufferedStore]:
    """Of the variant that the model runs."""
    return [layer.store for layer in moe_layers(model) if isinstance(layer.store, BufferedStore)]


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """What the block does leaves no trace in the slots."""
    with ExitStack() as stack:
        for store in buffered_stores(model):
            stack.enter_context(store.kept())
        yield
