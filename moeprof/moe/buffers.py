"""The buffered stores of a model's layers, which share a tier and a ledger."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Protocol

from torch import nn

from moeprof.moe.far_side import FarFFN, FarSide
from moeprof.moe.forecast import Forecast
from moeprof.moe.offloading import offload_of
from moeprof.moe.sparse_layer import SparseLayer, sparse_layers
from moeprof.policies.eviction.registry import make_eviction
from moeprof.policies.offloading.planner import HIGH
from moeprof.records.errors import UsageError
from moeprof.records.precision import PRECISIONS, Precision
from moeprof.records.recipe.model import stack_of
from moeprof.records.recipe.offloading import Offloading
from moeprof.records.recipe.variant import Variant
from moeprof.store.buffered import BufferedStore
from moeprof.store.entry import EntryLayout
from moeprof.store.host_memory import HostMemory
from moeprof.store.ledger import Ledger
from moeprof.store.offload import Form
from moeprof.store.offloaded import OffloadedStore
from moeprof.store.precision import packed_layout, packing, unpack
from moeprof.store.slots import SLOT_STORES, SlotStore
from moeprof.store.tier import Fill, HostTier, Tier

BufferedLayers = Callable[[Variant], Collection[str]]
"""The names of the layers that a variant buffers."""

Filling = Callable[[], AbstractContextManager[Fill]]
"""Opens the source of the weights for as long as a tier is filled from it."""


class AttachedPredictor(Protocol):
    """A predictor that is attached to a model."""

    def forecast(self, layers: Sequence[SparseLayer], choice: Offloading) -> Forecast:
        """What it will say about the layers of one stack while they run under a system."""
        ...

    def close(self) -> None:
        """Detaches the predictor from the model."""
        ...


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
        self.memories: dict[tuple[Variant, str], HostMemory] = {}
        """Host memory between the slots and the tier, by variant and stack."""
        self.forecaster: AttachedPredictor | None = None
        """What systems with a predictor ask."""
        self.sides: list[FarSide] = []
        """Processes that compute cold experts."""

    def held(self, layer: SparseLayer, variant: Variant) -> Sequence[int]:
        """The logical ids of the experts that a layer has on this rank, in physical order."""
        return range(layer.weights.num_experts)

    def fit(self, variant: Variant, slots: int | None = None) -> None:
        """Gives the layers of a buffered variant empty stores for the experts that the variant has on this rank.

        `slots` replaces the variant's own number until it is fitted again.
        """
        self.memories = {key: memory for key, memory in self.memories.items() if key[0] != variant}
        layers = [layer for layer in sparse_layers(self.model) if layer.name in self.buffered(variant)]
        if variant.offloading is not None:
            for _, stack in groupby(layers, key=lambda layer: stack_of(layer.name)):
                self.fit_stack(list(stack), variant, variant.offloading, slots)
            return
        for layer in layers:
            self.fit_layer(layer, variant, self.held(layer, variant), slots)

    def fit_stack(self, layers: Sequence[SparseLayer], variant: Variant, choice: Offloading, slots: int | None = None) -> None:
        """Gives the layers of one stack, in order of execution, the slots of an offloading system."""
        forms = {HIGH: Form([self.layouts[layer.name] for layer in layers], self.tier)}
        forms |= {name: self.packed(PRECISIONS[name], layers) for name in choice.low}
        if isinstance(self.tier, HostTier):
            with self.filling() as fill:
                for layer in layers:
                    self.tier.add(
                        self.layouts[layer.name], [(layer.name, expert) for expert in self.held(layer, variant)], fill
                    )
        memory = self.memory(variant, layers[0].name, in_order=choice.preload > 0)
        if memory is not None:
            forms = {name: replace(form, source=memory.before(name, form.source)) for name, form in forms.items()}
        side = self.far_side(layers) if choice.cold else None
        forecast = None if self.forecaster is None or not variant.predictor else self.forecaster.forecast(layers, choice)
        offload = offload_of(choice, slots or variant.slots, layers, forms, self.ledger, side, memory, forecast)
        for layer in layers:
            layer.stores[variant] = OffloadedStore(layer.name, offload)
            if forecast is not None:
                layer.forecasts[variant] = forecast

    def fit_layer(self, layer: SparseLayer, variant: Variant, held: Sequence[int], slots: int | None = None) -> None:
        """Gives one layer its store; `held` are its experts on this rank, which are all loaded from the tier."""
        layout, eviction = self.layouts[layer.name], make_eviction(variant.eviction)
        if isinstance(self.tier, HostTier):
            with self.filling() as fill:
                self.tier.add(layout, [(layer.name, expert) for expert in held], fill)
        memory = self.memory(variant, layer.name)
        source = None if memory is None else memory.before(HIGH, self.tier)
        layer.stores[variant] = BufferedStore(layer.name, held, slots or variant.slots, eviction, layout, self.ledger, source)

    def memory(self, variant: Variant, layer: str, *, in_order: bool = False) -> HostMemory | None:
        """What a variant has of host memory between slots and tier for the stack of a layer; None if it has none.

        Stacks have parts of it in proportion to their buffered layers. `in_order`: it keeps what runs next.
        """
        if not variant.host_bytes:
            return None
        stack, names = stack_of(layer), list(self.buffered(variant))
        mine = [name for name in names if stack_of(name) == stack]
        capacity_bytes = variant.host_bytes * len(mine) // len(names)
        return self.memories.setdefault((variant, stack), HostMemory(capacity_bytes, mine if in_order else ()))

    def packed(self, precision: Precision, layers: Sequence[SparseLayer]) -> Form:
        """The experts of some layers in low precision, in host memory."""
        layouts = {layer.name: packed_layout(self.layouts[layer.name], precision) for layer in layers}
        tier = HostTier({}, pinned=self.ledger.device == "cuda")
        with self.filling() as fill:
            packing_fill = packing(fill, self.layouts, precision)
            for layer in layers:
                tier.add(
                    layouts[layer.name], [(layer.name, expert) for expert in range(layer.weights.num_experts)], packing_fill
                )
        return packed_form(list(layouts.values()), tier, precision)

    def far_side(self, layers: Sequence[SparseLayer]) -> FarSide:
        """A process that has the experts of some layers; it ends with these buffers."""
        names = {layer.name: layer.weights.num_experts for layer in layers}
        self.sides.append(FarSide({name: self.layouts[name] for name in names}, names, self.tier, self.far_ffn()))
        return self.sides[-1]

    def far_ffn(self) -> FarFFN:
        """What experts compute, in names; UsageError if it has none."""
        raise UsageError("preset monde: a second process computes experts of moeprof's own models only", "Leave it out.")

    def close(self) -> None:
        """Stops the ledger after its queued loads, and ends other processes."""
        self.ledger.close()
        for side in self.sides:
            side.close()
        if self.forecaster is not None:
            self.forecaster.close()


def packed_form(layouts: Sequence[EntryLayout], tier: Tier, precision: Precision) -> Form:
    """Packed experts of a tier, by layer, with what unpacks them."""
    return Form(layouts, tier, lambda packed, into: unpack(packed, precision, into))


def buffered_stores(model: nn.Module) -> list[SlotStore]:
    """The stores with cache slots of the variant that the model runs."""
    return [layer.store for layer in sparse_layers(model) if isinstance(layer.store, SLOT_STORES)]


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Restores the contents of all cache slots after the block."""
    with ExitStack() as stack:
        for store in buffered_stores(model):
            stack.enter_context(store.kept())
        yield
