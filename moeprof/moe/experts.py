"""The experts' parameters, and the interface by which a kernel turns expert rows into outputs.

P physical experts, R rows (all experts' rows one after another), D width, F hidden width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moeprof.instrument.probe import region
from moeprof.records.ffn.form import FFNForm, Matrix, Shape
from moeprof.store.resident import ExpertWeights, Offsets, Store

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}

Product = Callable[[Tensor, Matrix], Tensor]
"""Rows (..., inputs) times a matrix, plus its bias if there is one, (..., outputs); each kernel has its own."""

FFN = Callable[[Tensor, Product], Tensor]
"""An FFN of one form and activation: outputs (..., D) of rows (..., D), by the products of a kernel."""


def make_ffn(form: FFNForm, activation: str) -> FFN:
    """The FFN of a form with the activation of this name."""
    return partial(form.outputs, activation=ACTIVATIONS[activation])


@dataclass(frozen=True, eq=False)
class ExpertRows:
    """Rows grouped by physical expert: those of expert p are `offsets[p]` to `offsets[p + 1]`."""

    rows_RD: Tensor
    offsets: Offsets
    """P + 1 bounds: a range if all experts have the same number of rows; a tensor (int32) may be on a device."""

    @property
    def bounds(self) -> list[int]:
        """The bounds on the host; waits for a device that has them."""
        return self.offsets.tolist() if isinstance(self.offsets, Tensor) else list(self.offsets)


Kernel = Callable[[ExpertRows, ExpertWeights, FFN], Tensor]


class Experts(nn.Module):
    """FFNs of one form: each of their tensors stacked by expert, as a parameter under its name."""

    def __init__(self, num_experts: int, shapes: Mapping[str, Shape]) -> None:
        """`shapes` are those of one expert."""
        super().__init__()
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(num_experts, *shape)))

    @property
    def weights(self) -> ExpertWeights:
        """The parameters of all experts, not copied."""
        return ExpertWeights((name, getattr(self, name)) for name in self.names)


def run_experts(kernel: Kernel, inputs: ExpertRows, store: Store, ffn: FFN, layer: str = "") -> Tensor:
    """Expert outputs (R, D), in as many waves as the store needs."""
    rows_RD = inputs.rows_RD
    outputs_RD, bounds = rows_RD, None
    for wave in store.waves():
        with region("experts", layer):
            if wave.experts is None:
                assert wave.weights is not None
                outputs_RD = kernel(inputs, wave.weights, ffn)
                continue
            if bounds is None:
                outputs_RD, bounds = torch.empty_like(rows_RD), inputs.bounds
            part = wave_rows(wave.experts, bounds)
            if wave.weights is not None:
                part.put(kernel(part.rows(inputs), wave.weights, ffn), outputs_RD)
            elif wave.send is not None:
                wave.send(part.rows(inputs).rows_RD, part.counts)
            else:
                part.put(wave.outputs_ND, outputs_RD)
    return outputs_RD


@dataclass(frozen=True)
class WaveRows:
    """The ranges of rows of a wave's experts, in the order of the wave."""

    ranges: list[tuple[int, int]]
    """Ranges of consecutive rows, as (first, last + 1)."""
    offsets: list[int]
    """Bounds of each expert's rows within the wave, one more than it has experts."""

    @property
    def counts(self) -> list[int]:
        """Number of rows of each expert of the wave."""
        return list(pairwise_lengths(self.offsets))

    def put(self, found_ND: Tensor | None, outputs_RD: Tensor) -> None:
        """Writes the outputs of the wave's rows to their places among those of all experts; zeros without outputs."""
        if found_ND is None:
            found_ND = outputs_RD.new_zeros(1).expand(sum(self.lengths), outputs_RD.shape[1])
        for (first, last), part in zip(self.ranges, torch.split(found_ND, self.lengths), strict=True):
            outputs_RD[first:last] = part

    @property
    def lengths(self) -> list[int]:
        """Number of rows of each range."""
        return [last - first for first, last in self.ranges]

    def rows(self, whole: ExpertRows) -> ExpertRows:
        """The rows of all ranges; a view if they are consecutive. Padded buffers stay padded."""
        pieces = [whole.rows_RD[first:last] for first, last in self.ranges]
        rows_RD = pieces[0] if len(pieces) == 1 else torch.cat(pieces or [whole.rows_RD[:0]])
        padded = isinstance(whole.offsets, range) and len(set(pairwise_lengths(self.offsets))) == 1
        step = self.offsets[1] if padded else 0
        return ExpertRows(rows_RD, range(0, len(rows_RD) + 1, step) if step else self.offsets)


def wave_rows(experts: Sequence[int], bounds: Sequence[int]) -> WaveRows:
    """The ranges of rows, within `bounds` (P + 1,), of a wave's experts."""
    ranges: list[tuple[int, int]] = []
    offsets = [0]
    for expert in experts:
        first, last = (bounds[expert], bounds[expert + 1]) if expert >= 0 else (0, 0)
        offsets.append(offsets[-1] + last - first)
        if first == last:
            continue
        if ranges and ranges[-1][1] == first:
            ranges[-1] = ranges[-1][0], last
        else:
            ranges.append((first, last))
    return WaveRows(ranges, offsets)


def pairwise_lengths(offsets: Sequence[int]) -> Iterator[int]:
    """Lengths of the segments between bounds."""
    return (last - first for first, last in pairwise(offsets))
