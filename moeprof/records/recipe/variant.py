"""How an MoE layer is executed: the choices that optimizations change, never what the model computes."""

from dataclasses import dataclass, replace

from moeprof.records.recipe.dispatch import DISPATCHES, Dispatch, dispatch_of


@dataclass(frozen=True)
class Variant:
    """One way to execute the same model with the same weights; `label` names its rows in `metrics.csv`."""

    dispatch: str = "static"
    """How tokens become expert rows."""
    kernel: str = "auto"
    """How expert rows become expert outputs; `auto` takes `bmm` for padded buffers and the cheapest for segments."""
    store: str = "resident"
    """Where expert weights live: `resident`, all of them on the device, or `buffered`, some in slots and all behind them."""
    placement: str = "contiguous"
    """Which rank owns which expert: the name of a balancer, or `file`."""
    dense: bool = False
    """The dense twin: every FFN dense at the same hidden width; the other choices then mean nothing."""
    slots: int = 0
    """Expert slots of each buffered layer on each rank."""
    eviction: str = ""
    """The policy by which an expert leaves a full buffer."""
    buffered: str = ""
    """Whose MoE layers are buffered: `decoder`, `encoder` or `all`."""
    replicas: int = 0
    """Slots of each layer on each rank for copies of hot experts."""
    placement_file: str = ""
    """Where a placement comes from that no balancer makes."""

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
    def placed(self) -> bool:
        """Whether experts lie elsewhere than contiguous placement has them."""
        return self.placement != Variant.placement

    @property
    def unplaced(self) -> "Variant":
        """The same with every expert where contiguous placement has it: what a placement is held against."""
        return replace(self, placement=Variant.placement, replicas=0, placement_file="")


STATIC = Variant()
DENSE = Variant(dense=True)


def baselines() -> dict[str, Variant]:
    """What optimizations can be compared with, by the name that `--against` takes: deployed dispatches and the dense twin."""
    return {name: Variant(name) for name, dispatch in DISPATCHES.items() if dispatch.baseline} | {DENSE.label: DENSE}


def timed_variants() -> dict[str, Variant]:
    """What an A/B test can time, by the name that `--variant` takes: every dispatch and the dense twin."""
    return baselines() | {name: Variant(name) for name in DISPATCHES}
