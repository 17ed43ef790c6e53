"""The kernel that is expected to be fastest, by costs measured on this machine with the layer's own weights."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from moeprof.instrument.clock import Clock, wall_clock
from moeprof.moe.experts import Activation, ExpertRows, Kernel
from moeprof.moe.kernels.bmm import bmm
from moeprof.moe.kernels.grouped_mm import grouped_mm, takes
from moeprof.moe.kernels.loop import loop
from moeprof.records.units import format_duration
from moeprof.store.resident import ExpertWeights

CANDIDATES: Mapping[str, Kernel] = {"loop": loop, "grouped_mm": grouped_mm}
"""For segments of any length; a tie goes to the first."""

REPEATS = 3
MANY_ROWS = 16
"""Rows of every expert in the largest trial."""


@dataclass(frozen=True)
class KernelCost:
    """Nanoseconds of a call, of every expert that has rows, and of every row."""

    call_ns: float
    expert_ns: float
    row_ns: float

    def of(self, active: int, rows: int) -> float:
        """Expected nanoseconds for `rows` rows of `active` experts."""
        return self.call_ns + self.expert_ns * active + self.row_ns * rows

    def __str__(self) -> str:
        parts = (self.call_ns, "a call"), (self.expert_ns, "an active expert"), (self.row_ns, "a row")
        return " + ".join(f"{format_duration(ns)} {what}" for ns, what in parts)


Shape = tuple[torch.Size, torch.dtype]


@dataclass
class Auto:
    """A kernel that hands every call to another one.

    On a device other than the CPU, reading the bounds would stop the host: `grouped_mm`, which need not, takes everything there.
    """

    clock: Clock = wall_clock
    costs: dict[Shape, dict[str, KernelCost]] = field(default_factory=dict)
    chosen: Counter[tuple[torch.Size, str]] = field(default_factory=Counter)
    """Calls by shape and by the kernel that they were handed to."""

    def __call__(self, inputs: ExpertRows, weights: ExpertWeights, activation: Activation) -> Tensor:
        if isinstance(inputs.offsets, range):  # padded buffers: all experts are alike
            return bmm(inputs, weights, activation)
        name = self.choice(inputs, weights, activation)
        self.chosen[weights.w1_EDF.shape, name] += 1
        return CANDIDATES[name](inputs, weights, activation)

    def choice(self, inputs: ExpertRows, weights: ExpertWeights, activation: Activation) -> str:
        """The name of the cheapest candidate, or of the only one."""
        if not takes(weights):
            return "loop"
        if inputs.rows_RD.device.type != "cpu":
            return "grouped_mm"
        costs = self.calibrated(weights, activation)
        active = sum(first < last for first, last in pairwise(inputs.bounds))
        return min(costs, key=lambda name: costs[name].of(active, len(inputs.rows_RD)))

    def prepare(self, weights: ExpertWeights, activation: Activation) -> None:
        """Measures now what a later call would have to measure first."""
        if takes(weights) and weights.w1_EDF.device.type == "cpu":
            self.calibrated(weights, activation)

    def calibrated(self, weights: ExpertWeights, activation: Activation) -> dict[str, KernelCost]:
        """Costs of all candidates for experts of this shape, measured the first time."""
        shape = weights.w1_EDF.shape, weights.w1_EDF.dtype
        if shape not in self.costs:
            self.costs[shape] = {name: self.measured(kernel, weights, activation) for name, kernel in CANDIDATES.items()}
        return self.costs[shape]

    def measured(self, kernel: Kernel, weights: ExpertWeights, activation: Activation) -> KernelCost:
        """Solves for the three costs from three trials: one row, one row of every expert, many rows of every expert."""
        num_experts = len(weights.w1_EDF)
        one, spread, many = (
            self.fastest_ns(kernel, weights, activation, *trial)
            for trial in ((1, 1), (num_experts, 1), (num_experts, MANY_ROWS))
        )
        row_ns = max(many - spread, 0.0) / (num_experts * (MANY_ROWS - 1))
        expert_ns = max((spread - one) / max(num_experts - 1, 1) - row_ns, 0.0)
        return KernelCost(max(one - expert_ns - row_ns, 0.0), expert_ns, row_ns)

    def fastest_ns(self, kernel: Kernel, weights: ExpertWeights, activation: Activation, active: int, rows_each: int) -> float:
        """Of some repeats; the first one warms up."""
        num_experts, dim = weights.w1_EDF.shape[:2]
        ends = torch.arange(1, num_experts + 1, dtype=torch.int32).clamp_(max=active) * rows_each
        inputs = ExpertRows(weights.w1_EDF.new_ones(active * rows_each, dim), torch.cat([ends.new_zeros(1), ends]))
        elapsed = []
        for _ in range(REPEATS + 1):
            started = self.clock()
            kernel(inputs, weights, activation)
            elapsed.append(self.clock() - started)
        return float(min(elapsed[1:]))

    def told(self) -> list[str]:
        """What was chosen since it was last asked, and by which costs: one sentence per shape."""
        sentences = []
        for shape in dict.fromkeys(shape for shape, _ in self.chosen):
            calls = Counter({name: count for (other, name), count in self.chosen.items() if other == shape})
            chosen = ", ".join(f"{name} in {count:,} of {calls.total():,} calls" for name, count in calls.most_common())
            known = [found for (other, _), found in self.costs.items() if other == shape]
            costs = "; ".join(f"{name} {cost}" for found in known for name, cost in found.items())
            sentences.append(f"kernel auto took {chosen}" + (f" (calibrated: {costs})" if costs else ""))
        self.chosen.clear()
        return sentences


auto = Auto()
"""The one in the registry: what it measured serves every layer of the same shape."""
