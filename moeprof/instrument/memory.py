"""The instrument of the pass `memory`: live tensor bytes, seen at torch's dispatcher, by region and category.

A storage counts from the operation that returns it until nothing holds it, once however many views there are. What an
operation allocates and frees inside itself is invisible. CPU, CUDA, meta and fake tensors look alike.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moeprof.instrument.clock import Clock, wall_clock
from moeprof.instrument.probe import Probe, observed_by
from moeprof.records.regions import LAYER_REGIONS, OTHER
from moeprof.records.run.run import MEMORY_SCHEMA

CATEGORIES = ("weights", "activations", "dispatch_buffers", "kv_cache", "expert_slots")
"""`weights` are static, and so are the `expert_slots` of a buffered store; the others are dynamic."""

CATEGORY_OF = dict.fromkeys(LAYER_REGIONS, "dispatch_buffers") | {"gate": "activations", "expert_load": "expert_slots"}
"""The category of an allocation inside a region; in all other regions it is `activations`."""

Static = Mapping[str, Sequence[Tensor]]
"""The tensors that a model keeps on its device, by category."""

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

MAX_VISITS = 5000
"""Largest number of region visits kept in the series; beyond it every second visit is removed, repeatedly."""


@dataclass(frozen=True)
class Moment:
    """Live dynamic bytes at one time."""

    time_ns: int
    layer: str
    region: str
    live: Mapping[str, int]
    """Live bytes by category."""

    @property
    def total(self) -> int:
        """Live bytes of all categories."""
        return sum(self.live.values())


class LiveBytes:
    """Sums up allocations and frees: the peak, the peaks by region and category, and the course over time."""

    def __init__(self, clock: Clock = wall_clock) -> None:
        self.clock, self.started_ns = clock, clock()
        self.live: Counter[str] = Counter()
        self.total = 0
        self.region, self.layer = OTHER, ""
        self.restart()

    def restart(self) -> None:
        """Resets the peaks and the course; what is live stays counted."""
        self.visits: list[tuple[Moment, Moment]] = []
        self.num_visits, self.stride = 0, 1
        self.by_region: Counter[str] = Counter()
        self.by_category: Counter[str] = Counter(self.live)
        self.peak = self.highest = self.moment()
        self.touched = False

    def moment(self) -> Moment:
        """The live bytes at this moment."""
        return Moment(self.clock() - self.started_ns, self.layer, self.region, dict(self.live))

    def add(self, category: str, size_bytes: int) -> None:
        """Counts an allocation, or a free if `size_bytes` is negative."""
        self.live[category] += size_bytes
        self.total += size_bytes
        self.touched = True
        self.by_category[category] = max(self.by_category[category], self.live[category])
        if self.total > self.highest.total:
            self.highest = self.moment()

    def enter(self, region: str, layer: str) -> None:
        """Ends the visit of one region and begins that of another."""
        self.leave()
        self.region, self.layer = region, layer
        self.highest, self.touched = self.moment(), False

    def leave(self) -> None:
        """Records the visit that ends; a visit outside all named regions only if something was allocated or freed in it."""
        if self.region == OTHER and not self.touched:
            return
        self.by_region[self.region] = max(self.by_region[self.region], self.highest.total)
        self.peak = max(self.peak, self.highest, key=lambda moment: moment.total)
        if self.num_visits % self.stride == 0:
            self.visits.append((self.highest, self.moment()))
        if len(self.visits) > MAX_VISITS:
            self.visits, self.stride = self.visits[::2], 2 * self.stride
        self.num_visits += 1

    @property
    def course(self) -> list[Moment]:
        """The peak and the end of every visit that was kept, in order; the highest of all is always among them."""
        moments = [moment for visit in self.visits for moment in visit]
        return sorted(moments if self.peak in moments else [*moments, self.peak], key=lambda moment: moment.time_ns)


@dataclass(frozen=True)
class LiveStorage:
    """A live storage; the weak reference calls back when it is freed."""

    category: str
    size_bytes: int
    is_float: bool
    reference: object


class OverLimitError(Exception):
    """The live bytes, its one argument, exceed the limit of a tracker."""


class MemoryTracker(Probe):
    """Tracks every storage on the device of `model` that is allocated while `observing`."""

    fixed_order = True

    def __init__(
        self, model: nn.Module, clock: Clock = wall_clock, limit_bytes: int | None = None, static: Static | None = None
    ) -> None:
        """With `limit_bytes`, weights included, OverLimitError is raised as soon as more is live after `begin`.

        `static` holds the tensors that exist throughout, by category; by default the model's parameters and buffers.
        """
        static = static or {"weights": [*model.parameters(), *model.buffers()]}
        self.static = {
            name: {key_of(tensor): tensor.untyped_storage() for tensor in tensors} for name, tensors in static.items()
        }
        self.weights = {key for storages in self.static.values() for key in storages}
        self.static_by_category = {
            name: size for name, storages in self.static.items() if (size := sum(one.nbytes() for one in storages.values()))
        }
        self.static_bytes = sum(self.static_by_category.values())
        self.device = static["weights"][0].device.type
        self.blocks: dict[int, LiveStorage] = {}
        self.bytes = LiveBytes(clock)
        self.limit_bytes, self.begun = limit_bytes, False

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Tracks what the block allocates, until it is freed, also after the block."""
        with observed_by(self), Allocations(self.saw):
            yield
        self.bytes.enter(OTHER, "")

    @contextmanager
    def region(self, name: str, layer: str) -> Iterator[None]:
        self.bytes.enter(name, layer)
        try:
            yield
        finally:
            self.bytes.enter(OTHER, "")

    def saw(self, outputs: Sequence[Tensor], inputs: Callable[[], list[Tensor]]) -> None:
        """Handles one operation: tensors that it returns and that were not known before are new."""
        for output in outputs:
            key = key_of(output)
            if key in self.weights or output.device.type != self.device:
                continue
            size_bytes, block = output.untyped_storage().nbytes(), self.blocks.get(key)
            if block is not None and block.size_bytes != size_bytes:  # resized in place
                self.freed(key)
            elif block is not None or key in map(key_of, inputs()):
                continue
            self.follow(output, CATEGORY_OF.get(self.bytes.region, "activations"), size_bytes)

    def follow(self, tensor: Tensor, category: str, size_bytes: int) -> None:
        """Counts the tensor's storage until it is freed."""
        key, storage = key_of(tensor), tensor.untyped_storage()
        reference = weakref.ref(storage, lambda _: self.freed(key))
        self.blocks[key] = LiveStorage(category, size_bytes, tensor.is_floating_point(), reference)
        self.bytes.add(category, size_bytes)
        if self.begun and self.limit_bytes is not None and self.static_bytes + self.bytes.total > self.limit_bytes:
            raise OverLimitError(self.static_bytes + self.bytes.total)

    def freed(self, key: int) -> None:
        """Removes a storage that was freed."""
        block = self.blocks.pop(key)
        self.bytes.add(block.category, -block.size_bytes)

    def begin(self) -> None:
        """Ends the untimed beginning: floating-point tensors that survived it are the KV cache, and peaks count from here."""
        for key, block in list(self.blocks.items()):
            if block.is_float and self.blocks.get(key) is block:
                self.bytes.add(block.category, -block.size_bytes)
                self.bytes.add("kv_cache", block.size_bytes)
                self.blocks[key] = LiveStorage("kv_cache", block.size_bytes, block.is_float, block.reference)
        self.bytes.restart()
        self.begun = True

    def at_peak(self) -> dict[str, int]:
        """Bytes by category, weights included, when the total was highest."""
        return self.with_static(self.bytes.peak.live)

    def with_static(self, live: Mapping[str, int]) -> dict[str, int]:
        """Bytes by category of static tensors and of what is live."""
        names = dict.fromkeys([*self.static_by_category, *live])
        return {name: self.static_by_category.get(name, 0) + live.get(name, 0) for name in names}

    def table(self, phase: str, variant: str) -> pa.Table:
        """The rows of `memory.parquet`: at every moment one per category that ever had bytes."""
        names = [name for name in CATEGORIES if name in self.static_by_category or self.bytes.by_category[name]]
        rows = [
            (moment.time_ns, phase, variant, moment.layer, moment.region, name, bytes_of.get(name, 0))
            for moment in self.bytes.course
            for bytes_of in [self.with_static(moment.live)]
            for name in names
        ]
        return pa.table([list(column) for column in zip(*rows, strict=True)], schema=MEMORY_SCHEMA)


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Passes the outputs and the inputs of every operation to `saw`."""

    def __init__(self, saw: Callable[[Sequence[Tensor], Callable[[], list[Tensor]]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.saw = saw

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in here; otherwise torch imports its compiler, which takes longer than a small run."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_composite(func):  # inference mode hands these over whole; their parts allocate
            with self:
                return func._op_dk(COMPOSITE, *args, **kwargs)
        outputs = func(*args, **kwargs)
        self.saw(tensors_in(outputs), lambda: tensors_in((args, kwargs)))
        return outputs


def is_composite(func: Any) -> bool:
    """Whether the operation consists of other operations on every device."""
    return func.namespace != "prim" and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE)


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors among the leaves of nested arguments."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def key_of(tensor: Tensor) -> int:
    """A number that identifies a live storage."""
    return int(tensor.untyped_storage()._cdata)
