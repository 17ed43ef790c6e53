"""How an MoE layer is executed: choices that optimizations change, while the model computes the same."""

from dataclasses import dataclass, replace

from moeprof.records.recipe.dispatch import DISPATCHES, Dispatch, dispatch_of
from moeprof.records.recipe.offloading import Offloading, parsed


@dataclass(frozen=True)
class Variant:
    """One way to execute the same model with the same weights; `label` names its rows in `metrics.csv`."""

    dispatch: str = "static"
    """Name of a registered dispatch: how tokens become expert rows."""
    kernel: str = "auto"
    """How expert rows become expert outputs; `auto` takes `bmm` for padded buffers and the cheapest kernel for segments."""
    store: str = "resident"
    """Where expert weights are: `resident`, all on the device, `buffered`, some in cache slots and all in slow memory, or the name
    of an offloading system."""
    placement: str = "contiguous"
    """Which rank holds which expert: the name of a balancer, or `file`."""
    dense: bool = False
    """Whether this is the dense twin: every FFN dense at the same hidden width, all other choices unused."""
    slots: int = 0
    """Cache slots of each buffered layer on each rank."""
    eviction: str = ""
    """Name of the eviction policy."""
    buffered: str = ""
    """Stacks whose MoE layers are buffered: `decoder`, `encoder` or `all`."""
    host_bytes: int = 0
    """Host memory of each rank between the cache slots and the file of experts; 0 for none."""
    replicas: int = 0
    """Additional slots of each layer on each rank for replicas of hot experts."""
    placement_file: str = ""
    """Path of the placement if `placement` is `file`."""
    system: str = ""
    """All choices of an offloading system, whose name `store` begins with; empty without one."""
    predictor: str = ""
    """Path of the predictor that an offloading system asks."""
    predictor_bytes: int = 0
    """Size of its parameters."""

    @property
    def label(self) -> str:
        """`static`, `dense`: the dispatch, followed by every choice that differs from the default."""
        if self.dense:
            return "dense"
        default = Variant()
        changed = (name for name in ("kernel", "store", "placement") if getattr(self, name) != getattr(default, name))
        return "+".join([self.dispatch, *(getattr(self, name) for name in changed)])

    @property
    def dispatch_entry(self) -> Dispatch:
        """Everything that other packages ask about its dispatch; the dense twin has no padding and no capacity."""
        return dispatch_of(self.label)

    @property
    def in_slots(self) -> bool:
        """Whether the experts of some layers are in cache slots; otherwise all are resident."""
        return bool(self.buffered)

    @property
    def offloading(self) -> Offloading | None:
        """The choices of its offloading system; None without one."""
        return parsed(self.system) if self.system else None

    @property
    def lossless(self) -> bool:
        """Whether it computes what the baseline computes, up to rounding and dropped choices."""
        return self.offloading is None or self.offloading.lossless

    @property
    def placed(self) -> bool:
        """Whether the placement differs from the contiguous one."""
        return self.placement != Variant.placement

    @property
    def unplaced(self) -> "Variant":
        """The same variant with contiguous placement: the baseline of a placement."""
        return replace(self, placement=Variant.placement, replicas=0, placement_file="")


OWN = Variant("own")
"""A Hugging Face model as transformers runs it."""
STATIC = Variant()
DENSE = Variant(dense=True)


def baselines() -> dict[str, Variant]:
    """What optimizations can be compared with, by the name that `--against` takes: deployed dispatches and the dense twin."""
    return {name: Variant(name) for name, dispatch in DISPATCHES.items() if dispatch.baseline} | {DENSE.label: DENSE}


def timed_variants() -> dict[str, Variant]:
    """What an A/B test can time, by the name that `--variant` takes: every dispatch and the dense twin."""
    return baselines() | {name: Variant(name) for name in DISPATCHES}
