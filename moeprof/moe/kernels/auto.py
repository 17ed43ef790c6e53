"""The kernel with the lowest expected cost, from costs measured on this machine with the layer's own weights."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from moeprof.instrument.clock import Clock, wall_clock
from moeprof.moe.experts import FFN, ExpertRows, Kernel
from moeprof.moe.kernels.bmm import bmm
from moeprof.moe.kernels.grouped_mm import grouped_mm, takes
from moeprof.moe.kernels.loop import loop
from moeprof.records.units import format_duration
from moeprof.store.resident import ExpertWeights

CANDIDATES: Mapping[str, Kernel] = {"loop": loop, "grouped_mm": grouped_mm}
"""Kernels for segments of any length; of two with the same cost the first is taken."""

REPEATS = 3
MANY_ROWS = 16
"""Rows of each expert in the largest trial."""


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


Shapes = tuple[tuple[str, torch.Size], ...]
"""Names and shapes of the tensors of some experts."""


@dataclass
class Auto:
    """A kernel that passes every call on to another one.

    On a device other than the CPU that is always `grouped_mm`, which does not read the bounds and so does not stop the host.
    """

    clock: Clock = wall_clock
    costs: dict[tuple[Shapes, torch.dtype], dict[str, KernelCost]] = field(default_factory=dict)
    chosen: Counter[tuple[Shapes, str]] = field(default_factory=Counter)
    """Calls by the shapes of the weights and by the kernel that took them."""

    def __call__(self, inputs: ExpertRows, weights: ExpertWeights, ffn: FFN) -> Tensor:
        if isinstance(inputs.offsets, range):  # padded buffers: all experts are alike
            return bmm(inputs, weights, ffn)
        name = self.choice(inputs, weights, ffn)
        self.chosen[shapes_of(weights), name] += 1
        return CANDIDATES[name](inputs, weights, ffn)

    def choice(self, inputs: ExpertRows, weights: ExpertWeights, ffn: FFN) -> str:
        """The name of the cheapest kernel that can take these experts."""
        if not takes(weights):
            return "loop"
        if inputs.rows_RD.device.type != "cpu":
            return "grouped_mm"
        costs = self.calibrated(weights, ffn)
        active = sum(first < last for first, last in pairwise(inputs.bounds))
        return min(costs, key=lambda name: costs[name].of(active, len(inputs.rows_RD)))

    def prepare(self, weights: ExpertWeights, ffn: FFN) -> None:
        """Measures the costs now, so that no later call has to."""
        if takes(weights) and weights.first.device.type == "cpu":
            self.calibrated(weights, ffn)

    def calibrated(self, weights: ExpertWeights, ffn: FFN) -> dict[str, KernelCost]:
        """Costs of all candidates for experts of this shape, measured the first time."""
        kind = shapes_of(weights), weights.first.dtype
        if kind not in self.costs:
            self.costs[kind] = {name: self.measured(kernel, weights, ffn) for name, kernel in CANDIDATES.items()}
        return self.costs[kind]

    def measured(self, kernel: Kernel, weights: ExpertWeights, ffn: FFN) -> KernelCost:
        """Solves for the three costs from three trials: one row, one row of every expert, many rows of every expert."""
        num_experts = weights.num_experts
        one, spread, many = (
            self.fastest_ns(kernel, weights, ffn, *trial) for trial in ((1, 1), (num_experts, 1), (num_experts, MANY_ROWS))
        )
        row_ns = max(many - spread, 0.0) / (num_experts * (MANY_ROWS - 1))
        expert_ns = max((spread - one) / max(num_experts - 1, 1) - row_ns, 0.0)
        return KernelCost(max(one - expert_ns - row_ns, 0.0), expert_ns, row_ns)

    def fastest_ns(self, kernel: Kernel, weights: ExpertWeights, ffn: FFN, active: int, rows_each: int) -> float:
        """The fastest of some repeats; one more before them warms up."""
        num_experts, dim = weights.first.shape[:2]
        ends = torch.arange(1, num_experts + 1, dtype=torch.int32).clamp_(max=active) * rows_each
        inputs = ExpertRows(weights.first.new_ones(active * rows_each, dim), torch.cat([ends.new_zeros(1), ends]))
        elapsed = []
        for _ in range(REPEATS + 1):
            started = self.clock()
            kernel(inputs, weights, ffn)
            elapsed.append(self.clock() - started)
        return float(min(elapsed[1:]))

    def take_remarks(self) -> list[str]:
        """Which kernels were chosen since the last call of this, and by which costs: one sentence per shape of experts."""
        sentences = []
        for shapes in dict.fromkeys(shapes for shapes, _ in self.chosen):
            calls = Counter({name: count for (other, name), count in self.chosen.items() if other == shapes})
            chosen = ", ".join(f"{name} in {count:,} of {calls.total():,} calls" for name, count in calls.most_common())
            known = [found for (other, _), found in self.costs.items() if other == shapes]
            costs = "; ".join(f"{name} {cost}" for found in known for name, cost in found.items())
            sentences.append(f"kernel auto took {chosen}" + (f" (calibrated: {costs})" if costs else ""))
        self.chosen.clear()
        return sentences


auto = Auto()
"""The kernel in the registry: layers of the same shape share what it measured."""


def shapes_of(weights: ExpertWeights) -> Shapes:
    """Names and shapes, which experts of the same speed have in common."""
    return tuple((name, whole.shape) for name, whole in weights.items())
