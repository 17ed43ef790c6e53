"""The buffered stores of a model's layers, which share a tier and a ledger."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from torch import nn

from moeprof.moe.sparse_layer import SparseLayer, sparse_layers
from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.recipe.variant import Variant
from moeprof.store.buffered import BufferedStore
from moeprof.store.entry import EntryLayout
from moeprof.store.ledger import Ledger
from moeprof.store.tier import Fill, HostTier, Tier

BufferedLayers = Callable[[Variant], Collection[str]]
"""The names of the layers that a variant buffers."""

Filling = Callable[[], AbstractContextManager[Fill]]
"""Opens the source of the weights for as long as a tier is filled from it."""


class Buffers:
    """The cache slots of all buffered variants of one model."""

    def __init__(
        self,
        model: nn.Module,
        buffered: BufferedLayers,
        layouts: Mapping[str, EntryLayout],
        tier: Tier,
        filling: Filling,
        device: str,
    ) -> None:
        """`layouts` are those of the entries of buffered layers, by name; `filling` fills a tier in host memory."""
        self.model, self.buffered, self.layouts, self.tier, self.filling = model, buffered, layouts, tier, filling
        self.ledger = Ledger(tier, device)

    def held(self, layer: SparseLayer, variant: Variant) -> Sequence[int]:
        """The logical ids of the experts that a layer has on this rank, in physical order."""
        return range(layer.weights.num_experts)

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
        if isinstance(self.tier, HostTier):
            with self.filling() as fill:
                self.tier.add(layout, [(layer.name, expert) for expert in held], fill)
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
