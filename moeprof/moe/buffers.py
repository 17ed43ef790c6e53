"""The buffered stores of a model's layers, which share a tier and a ledger."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from moeprof.moe.sparse_layer import SparseLayer, sparse_layers
from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.recipe.variant import Variant
from moeprof.store.buffered import BufferedStore
from moeprof.store.entry import EntryLayout
from moeprof.store.ledger import Ledger
from moeprof.store.tier import Tier


class Buffers:
    """The cache slots of all buffered variants of one model; what depends on the kind of model is overridden."""

    def __init__(self, model: nn.Module, layouts: Mapping[str, EntryLayout], tier: Tier, device: str) -> None:
        """`layouts` are those of the entries of buffered layers, by name."""
        self.model, self.layouts, self.tier = model, layouts, tier
        self.ledger = Ledger(tier, device)

    def buffered(self, variant: Variant) -> Collection[str]:
        """The names of the layers that the variant buffers."""
        raise NotImplementedError

    def held(self, layer: SparseLayer, variant: Variant) -> Sequence[int]:
        """The logical ids of the experts that a layer has on this rank, in physical order."""
        raise NotImplementedError

    def fit(self, variant: Variant, slots: int | None = None) -> None:
        """Gives the layers of a buffered variant empty stores for the experts that the variant has on this rank.

        `slots` replaces the variant's own number until it is fitted again.
        """
        for layer in sparse_layers(self.model):
            if layer.name in self.buffered(variant):
                self.fit_layer(layer, variant, self.held(layer, variant), slots)

    def fit_layer(self, layer: SparseLayer, variant: Variant, held: Sequence[int], slots: int | None = None) -> None:
        """Gives one layer its store; `held` are its experts on this rank, which are all loaded from the tier."""
        layout, eviction = self.layouts[layer.name], make_eviction(variant.eviction)
        layer.stores[variant] = BufferedStore(layer.name, held, slots or variant.slots, eviction, layout, self.ledger)

    def close(self) -> None:
        """Stops the ledger after its queued loads."""
        self.ledger.close()


def buffered_stores(model: nn.Module) -> list[BufferedStore]:
    """The buffered stores of the variant that the model runs."""
    return [layer.store for layer in sparse_layers(model) if isinstance(layer.store, BufferedStore)]


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Restores the contents of all cache slots after the block."""
    with ExitStack() as stack:
        for store in buffered_stores(model):
            stack.enter_context(store.kept())
        yield
