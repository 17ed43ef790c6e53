"""What a replay was made from and how, for runs that no recipe decides."""

from math import log2
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Access = Literal["sequential", "batch"]
Choice = Literal["all", "prefill", "decode"]

PREFILL, DECODE, ALL = "prefill", "decode", "all"
PHASES = (PREFILL, DECODE)
"""What is replayed: steps of many tokens, and steps of one token per sequence; `all` is both, one after the other."""

Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TraceSource(Strict):
    """Whose routing was replayed."""

    name: str
    path: str
    workload: str
    num_experts: Positive
    top_k: Positive
    layers: list[str]
    """In order of execution."""
    decisions: dict[str, str]
    """SHA-256 of the routers' decisions, by phase and variant as recorded."""
    forced: bool = False
    expert_bytes: dict[str, Positive] = {}
    """Of one expert in each layer; empty where nobody said."""
    weight_bytes: int | None = None
    """Of all weights of the model, where its shape is known."""
    routed_bytes: int = 0
    """Of them those of routed experts, the layers included that were not replayed."""
    step_ns: dict[str, float] = {}
    """How long a step took in each phase of the replay, where the run that recorded the trace was timed."""
    token_bytes: Positive | None = None
    """Of one token on its way to an expert; None where nobody says."""
    weights_hash: str = ""
    """Of the model that was recorded; empty where nobody says."""


class BalanceRequest(Strict):
    """What was asked of a replay of placements."""

    trace: TraceSource
    balancers: list[str]
    devices: list[Positive]
    """Rising."""
    nodes: Positive = 1
    """Over which the devices are spread, in blocks of equal size."""
    replicas: Annotated[int, Field(ge=0)] = 1
    """Slots of each layer on each device beyond its share of the experts, for balancers that replicate."""
    phase: Choice
    bandwidth: Positive
    """Of each device's link to others of its node, bytes per second."""
    node_bandwidth: Positive
    """The same to other nodes."""

    @property
    def focus(self) -> int:
        """The number of devices that the report speaks for: the one nearest to a machine's usual eight."""
        return min(self.devices, key=lambda devices: abs(log2(devices / 8)))


class ReplayRequest(Strict):
    """What was asked of a replay of caches."""

    trace: TraceSource
    policies: list[str]
    slots: list[Positive] = []
    """Expert slots of each layer on each device; one of these two is empty."""
    budgets: list[Positive] = []
    """Bytes of each device for the experts of all layers together."""
    access: Access
    phase: Choice
    devices: Positive = 1
    """Over which the experts of a layer are spread, in contiguous blocks of equal size."""
    bandwidth: Positive
    """Of the link over which a device loads experts, bytes per second."""
    overlap_ns: Annotated[int, Field(ge=0)] = 0
    """Of every layer's step, behind which loading hides."""

    @model_validator(mode="after")
    def sizes_rise(self) -> "ReplayRequest":
        if bool(self.slots) == bool(self.budgets) or self.sizes != sorted(set(self.sizes)):
            raise ValueError("it needs rising slots or rising budgets")
        return self

    @property
    def swept(self) -> str:
        """What the sizes are: `slots` or `budget_bytes`."""
        return "budget_bytes" if self.budgets else "slots"

    @property
    def sizes(self) -> list[int]:
        """Those that were replayed."""
        return self.budgets or self.slots
