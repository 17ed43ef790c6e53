"""How an MoE layer is executed: the choices that optimizations change, never what the model computes."""

from dataclasses import dataclass, replace


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
    def placed(self) -> bool:
        """Whether experts lie elsewhere than contiguous placement has them."""
        return self.placement != Variant.placement

    @property
    def unplaced(self) -> "Variant":
        """The same with every expert where contiguous placement has it: what a placement is held against."""
        return replace(self, placement=Variant.placement, replicas=0, placement_file="")


STATIC = Variant()
DENSE = Variant(dense=True)

BASELINES = {
    "static": STATIC,
    "tutel": Variant(dispatch="tutel"),
    "tutel-dropless": Variant(dispatch="tutel-dropless"),
    "dense": DENSE,
}
"""What an optimization can be held against, by the name that the user gives it."""

TIMED = BASELINES | {"dynamic": Variant(dispatch="dynamic")}
"""What two sides can be timed under in turns, likewise."""


def dispatch_of(label: str) -> str:
    """The dispatch in a variant's label, `dense` for the twin."""
    return label.partition("+")[0]
