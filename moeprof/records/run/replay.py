"""The source and the settings of what reads a trace and has no recipe: replays, and the characterization of a trace."""

from math import log2
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moeprof.records.limits import MAX_EXPERTS, MAX_SIZE, ExpertCount, Positive, Size
from moeprof.records.traces.import_options import ImportOptions

PhaseChoice = Literal["all", "prefill", "decode"]

PREFILL, DECODE, ALL = "prefill", "decode", "all"
PHASES = (PREFILL, DECODE)
"""The replayed phases: steps of many tokens, and steps of one token per sequence; `all` is one after the other."""


class Strict(BaseModel):
    """A model that refuses unknown keys and infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TraceSource(Strict):
    """The trace whose routing was replayed."""

    name: str
    path: str
    workload: str
    num_experts: ExpertCount
    top_k: Positive
    top_k_known: bool = True
    """Whether the choices of a token are known; if they are not, `top_k` is 1, and every choice counts as a token."""
    layers: list[str]
    """Layers in order of execution."""
    decisions: dict[str, str]
    """SHA-256 of the routing decisions, by recorded phase and variant."""
    forced: bool = False
    expert_bytes: dict[str, Size] = {}
    """Size of one expert in each layer; empty if unknown."""
    weight_bytes: int | None = None
    """Size of all weights of the model; None if its shape is unknown."""
    routed_bytes: int = 0
    """The part of `weight_bytes` in routed experts, including layers that were not replayed."""
    step_ns: dict[str, float] = {}
    """Duration of a step by replayed phase, if the run that recorded the trace was timed."""
    token_bytes: Size | None = None
    """Size of one token that is sent to an expert; None if unknown."""
    weights_hash: str = ""
    """Hash of the recorded model's weights; empty if unknown."""
    groups: int = 0
    """Groups of neighbouring experts among which the model's router chooses first; 0 if it has none or they are unknown."""
    options: ImportOptions = ImportOptions()
    """What the user stated about the files."""

    @property
    def counted(self) -> tuple[str, str]:
        """What a step has, as one and as many."""
        return ("token", "tokens") if self.top_k_known else ("choice", "choices")

    @property
    def choices_of_a_token(self) -> str:
        """What follows the number of experts in a sentence: `, top-2`, or that the number is not known."""
        return f", top-{self.top_k}" if self.top_k_known else "; the experts of a token are not known"


class TraceRequest(Strict):
    """The trace of a characterization that runs no model."""

    trace: TraceSource
    variant: str
    """The label of the variant that was recorded, which the rows of the run have."""
    counts_only: bool = False
    """Whether the source counts choices without their order."""
    order_doubt: str = ""
    """Why the steps may not be in the order of the recording; empty if there is no doubt."""

    @model_validator(mode="before")
    @classmethod
    def of_earlier_runs(cls, recorded: Any) -> Any:
        """In earlier runs the trace did not say whether the choices of a token are known, but the request did."""
        if isinstance(recorded, dict) and isinstance(recorded.get("trace"), dict) and "top_k_known" in recorded:
            known = {"top_k_known": recorded["top_k_known"]}
            return {key: value for key, value in recorded.items() if key not in known} | {"trace": recorded["trace"] | known}
        return recorded


class BalanceRequest(Strict):
    """The settings of a replay of placements."""

    trace: TraceSource
    balancers: list[str]
    devices: list[Positive]
    """Numbers of devices in ascending order."""
    nodes: Positive = 1
    """Number of nodes that the devices are spread over, in blocks of equal size."""
    groups: Annotated[int, Field(ge=0, le=MAX_EXPERTS)] = 0
    """Groups of neighbouring experts that stay on one node, for balancers that place node by node; 0 if there are none."""
    replicas: Annotated[int, Field(ge=0, le=MAX_EXPERTS)] = 1
    """Extra slots per layer and device for copies of experts, for balancers that replicate."""
    replica_numbers: list[Annotated[int, Field(ge=0, le=MAX_EXPERTS)]] = []
    """Numbers of such slots that are compared; the first one is `replicas`. Empty if there is only one."""
    tokens_per_step: list[Positive] = []
    """Numbers of consecutive tokens that steps are made of; the first one is that of all rows without `tokens` in their point. Empty if
    the steps are those of the trace."""
    every: list[Positive] = []
    """Numbers of steps after which experts are placed again, along the trace; empty if they are not."""
    window: Annotated[int, Field(ge=0)] = 0
    """Steps before a placement that it is made from, along the trace."""
    most_moves: Positive = 2
    """Experts of a layer that a device receives at most in an incremental placement."""
    expert_ns: Annotated[int, Field(ge=1, le=MAX_SIZE)] | None = None
    """Time that the experts of all layers take in a step under contiguous placement; None if unknown."""
    phase: PhaseChoice
    bandwidth: Size
    """Bandwidth of a device to others of its node, bytes per second."""
    node_bandwidth: Size
    """Bandwidth of a device to other nodes, bytes per second."""

    @property
    def focus(self) -> int:
        """The number of devices that the verdict is about: of those that contiguous placement fills, the one nearest to 8.

        Eight is the usual size of a machine.
        """
        filled = [devices for devices in self.devices if devices not in self.unfilled]
        return min(filled or self.devices, key=lambda devices: abs(log2(devices / 8)))

    @property
    def unfilled(self) -> list[int]:
        """The numbers of devices that the experts cannot be divided over equally: there is no contiguous placement to compare with."""
        return [devices for devices in self.devices if self.trace.num_experts % devices]


class OffloadingRequest(Strict):
    """The settings of a replay of offloading systems."""

    trace: TraceSource
    systems: list[str]
    """Presets with their settings as the user gave them, which are the labels of their rows."""
    slots: Positive
    """Experts per layer whose bytes, at the model's own precision, every system has as fast memory."""
    phase: PhaseChoice
    bandwidth: Size
    """Bandwidth at which experts are loaded, bytes per second."""
    weight_bits: Positive = 16
    """Of a weight at the model's own precision, which sizes in low precision follow from."""
    weight_bits_known: bool = True
    """Whether the run that recorded the trace, or the user, states them; otherwise they are assumed."""
    steps: dict[str, Positive] = {}
    """Steps of every replayed phase."""


class ReplayRequest(Strict):
    """The settings of a replay of caches."""

    trace: TraceSource
    policies: list[str]
    slots: list[Positive] = []
    """Cache slots per layer and device; empty if `budgets` is not."""
    budgets: list[Size] = []
    """Cache bytes per device for all layers together; empty if `slots` is not."""
    access: Literal["sequential", "batch"]
    phase: PhaseChoice
    devices: Positive = 1
    """Number of devices that the experts of a layer are spread over, in contiguous blocks of equal size."""
    bandwidth: Size
    """Bandwidth at which a device loads experts, bytes per second."""
    overlap_ns: Annotated[int, Field(ge=0, le=MAX_SIZE)] = 0
    """Compute time per layer and step that expert copies can overlap with."""

    @model_validator(mode="after")
    def sizes_rise(self) -> "ReplayRequest":
        if bool(self.slots) == bool(self.budgets) or self.sizes != sorted(set(self.sizes)):
            raise ValueError("either slots or budgets must be given, in ascending order")
        return self

    @property
    def swept(self) -> str:
        """The key of the sizes in a point: `slots` or `budget_bytes`."""
        return "budget_bytes" if self.budgets else "slots"

    @property
    def sizes(self) -> list[int]:
        """The replayed cache sizes, in slots or bytes."""
        return self.budgets or self.slots
