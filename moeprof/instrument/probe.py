"""The place where an instrument observes a model: one probe at a time, and none while time is measured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor

from moeprof.instrument.step import Step
from moeprof.records.traces.expert_loads import LayerLoads

UNOBSERVED: AbstractContextManager[None] = nullcontext()


class Probe:
    """The base of all instruments, which override what they observe."""

    fixed_order = False
    """Whether the order of the work in a step must depend on the routing only, not on when loads arrive."""

    def region(self, name: str, layer: str) -> AbstractContextManager[None]:
        """Entered and left around a region; regions never nest."""
        return UNOBSERVED

    def scored(self, layer: str, step: Step, gates_TE: Tensor) -> None:
        """Called once per MoE layer and step with the router's softmax over all experts, float32."""

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        """Called once per MoE layer and step with the router's choices, their softmax values, the drops, and the rows computed."""

    def called(self, layer: str, step: Step, backend: str, choices: Mapping[str, int]) -> None:
        """Called once per layer and step of a Hugging Face model with what computed its experts, and the number of choices of each kind
        (`routed`, `padding`, ...); they add up to rows x K."""

    def exchanged(self, region: str, layer: str, to_bytes: Sequence[int], start_ns: int, wait_ns: int, end_ns: int) -> None:
        """Called once per collective on every rank, in the same order, with the bytes for each destination rank (own rank
        included), and the times when it started, when this rank began to wait for it, and when it was complete."""

    def visited(self, layer: str, visit: LayerLoads) -> None:
        """Called once per buffered layer and step, when its experts are done, with the use of each of them."""


_active: Probe | None = None


def active() -> Probe | None:
    """The active probe; None if there is none."""
    return _active


def collective_probe() -> Probe | None:
    """The active probe if it overrides `exchanged`: other probes do not pay for reading the clock."""
    return None if _active is None or type(_active).exchanged is Probe.exchanged else _active


def expert_load_probe() -> Probe | None:
    """The active probe if it overrides `visited`, for the same reason."""
    return None if _active is None or type(_active).visited is Probe.visited else _active


def order_is_fixed() -> bool:
    """Whether the active probe needs an order of the work that does not depend on timing."""
    return _active is not None and _active.fixed_order


@contextmanager
def observed_by(probe: Probe) -> Iterator[None]:
    """Makes `probe` observe everything that runs inside the block."""
    global _active
    if _active is not None:
        raise RuntimeError("instruments disturb each other: only one probe can be active")
    _active = probe
    try:
        yield
    finally:
        _active = None


def region(name: str, layer: str = "") -> AbstractContextManager[None]:
    """`with region("gate", "3"):` marks work; without a probe it does nothing."""
    return UNOBSERVED if _active is None else _active.region(name, layer)
