"""The exchange between dispatch and experts: rows go to the ranks of their experts, and the outputs return.

N ranks, P physical experts, L = P / N experts of each rank (contiguous), R rows, c capacity slots per expert, D width.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from moeprof.instrument.clock import synchronized, wall_clock
from moeprof.instrument.probe import collective_probe, region
from moeprof.moe.experts import ExpertRows
from moeprof.parallel.collectives import largest, start_all_to_all
from moeprof.parallel.group import Group
from moeprof.store.resident import Offsets

Splits = Sequence[int] | None
"""Rows for, or from, each rank; None if all ranks get equally many."""

ReturnOutputs = Callable[[Tensor], Tensor]
"""Takes the outputs of this rank's experts; gives the outputs of the rows that this rank dispatched, in their order."""

Expect = Callable[[Offsets], None]
"""Takes the bounds of the rows of this rank's experts."""


class Exchange(Protocol):
    """What ranks do for each other in one step of one layer."""

    def largest(self, slots: int) -> int:
        """The most capacity slots that any rank needs: Tutel's all-reduce of the dropless capacity."""
        ...

    def announce(self, offsets: Tensor) -> None:
        """Starts the all-to-all of sizes; `offsets` (P + 1,) bound the rows of every expert."""
        ...

    def send_to_experts(self, rows: ExpertRows, expect: Expect) -> tuple[ExpertRows, ReturnOutputs]:
        """The rows of this rank's experts from all ranks, expert by expert and rank 0 first; and how outputs return.

        `expect` is called with the bounds of these rows as soon as they are known, before the rows arrive.
        """
        ...


class LocalExchange:
    """The exchange of one rank: its rows and outputs need not move."""

    def largest(self, slots: int) -> int:
        """This rank's own slots."""
        return slots

    def announce(self, offsets: Tensor) -> None:
        """Does nothing: no other rank needs the sizes."""

    def send_to_experts(self, rows: ExpertRows, expect: Expect) -> tuple[ExpertRows, ReturnOutputs]:
        """The rows themselves, not copied."""
        expect(rows.offsets)
        return rows, unchanged


def unchanged(outputs_RD: Tensor) -> Tensor:
    """The outputs themselves, not copied."""
    return outputs_RD


LOCAL = LocalExchange()


class AllToAll:
    """One all-to-all from its start to its end; it reads a clock only if a probe records collectives."""

    def __init__(self, name: str, layer: str, group: Group, rows: Tensor, sent: Splits = None, received: Splits = None) -> None:
        self.name, self.layer = name, layer
        row_bytes = rows.element_size() * math.prod(rows.shape[1:])
        self.to_bytes = [count * row_bytes for count in sent or [len(rows) // group.size] * group.size]
        self.started_ns = 0 if collective_probe() is None else synchronized(rows.device.type)()
        self.arriving = start_all_to_all(rows, sent, received)
        self.done_ns: list[int] = []
        if self.started_ns and rows.device.type == "cpu":
            self.arriving.when_done(lambda: self.done_ns.append(wall_clock()))

    def end(self, *, at_once: bool = False) -> Tensor:
        """The rows that arrived, source by source; `at_once` if the rank has waited for them since the start."""
        probe = collective_probe()
        if probe is None:
            return self.arriving.wait()
        waiting_ns = self.started_ns if at_once else wall_clock()
        arrived_ns = list(self.done_ns)
        rows = self.arriving.wait()
        end_ns = arrived_ns[0] if arrived_ns else synchronized(rows.device.type)()
        probe.exchanged(self.name, self.layer, self.to_bytes, self.started_ns, waiting_ns, end_ns)
        return rows


class RankExchange:
    """The exchange of several ranks: the all-to-alls of one layer in one step.

    Capacity slots (static, Tutel): one all-to-all to the experts and one back, equal for all ranks. Tokens (dynamic gating): first
    the sizes, P whole numbers of every rank, sent while the tokens are being reordered; then the tokens, and back (paper.md 4).
    """

    def __init__(self, layer: str, group: Group) -> None:
        self.layer, self.group = layer, group
        self.sizes: AllToAll | None = None

    def largest(self, slots: int) -> int:
        """The most capacity slots that any rank needs, from an all-reduce."""
        return largest(self.group, [slots])[0]

    def announce(self, offsets: Tensor) -> None:
        """Starts the all-to-all of sizes; `offsets` (P + 1,) bound the rows of every expert."""
        self.sizes = AllToAll("a2a_sizes", self.layer, self.group, offsets.diff().long())

    def send_to_experts(self, rows: ExpertRows, expect: Expect) -> tuple[ExpertRows, ReturnOutputs]:
        """Sends padded buffers, whose bounds are a `range`, in equal shares, and other rows by their sizes."""
        if isinstance(rows.offsets, range):
            return self.send_slots(rows.rows_RD, rows.offsets.step, expect)
        return self.send_tokens(rows, expect)

    def send_slots(self, rows_RD: Tensor, slots: int, expect: Expect) -> tuple[ExpertRows, ReturnOutputs]:
        """Sends all capacity slots, filled or not."""
        num_ranks = self.group.size
        mine = range(0, len(rows_RD) + 1, num_ranks * slots)
        expect(mine)
        arrived_RD = self.all_to_all("a2a_dispatch", rows_RD)
        with region("dispatch", self.layer):
            mine_RD = swap_blocks(arrived_RD, num_ranks, slots)

        def return_outputs(outputs_RD: Tensor) -> Tensor:
            with region("combine", self.layer):
                leaving_RD = swap_blocks(outputs_RD, len(outputs_RD) // (num_ranks * slots), slots)
            return self.all_to_all("a2a_combine", leaving_RD)

        return ExpertRows(mine_RD, mine), return_outputs

    def send_tokens(self, rows: ExpertRows, expect: Expect) -> tuple[ExpertRows, ReturnOutputs]:
        """Sends as many rows as there are: this rank must know the sizes before it can receive a token."""
        assert self.sizes is not None
        with region("a2a_sizes", self.layer):
            sizes_NL = self.sizes.end().view(self.group.size, -1)
        with region("dispatch", self.layer):
            sent, received = rank_shares(rows, sizes_NL.shape[1]), sizes_NL.sum(dim=1).tolist()
            ends_L = sizes_NL.sum(dim=0).cumsum(0, dtype=torch.int32)
            offsets = torch.cat([ends_L.new_zeros(1), ends_L])
        expect(offsets)
        arrived_RD = self.all_to_all("a2a_dispatch", rows.rows_RD, sent, received)
        with region("dispatch", self.layer):
            order_R = expert_order(sizes_NL, len(arrived_RD))
            mine_RD = arrived_RD.index_select(0, order_R)

        def return_outputs(outputs_RD: Tensor) -> Tensor:
            with region("combine", self.layer):
                leaving_RD = torch.empty_like(outputs_RD).index_copy_(0, order_R, outputs_RD)
            return self.all_to_all("a2a_combine", leaving_RD, received, sent)

        return ExpertRows(mine_RD, offsets), return_outputs

    def all_to_all(self, name: str, rows_RD: Tensor, sent: Splits = None, received: Splits = None) -> Tensor:
        """One all-to-all that nothing overlaps."""
        with region(name, self.layer):
            return AllToAll(name, self.layer, self.group, rows_RD, sent, received).end(at_once=True)


def exchange_of(layer: str, group: Group) -> Exchange:
    """A new exchange for one step of a layer."""
    return LOCAL if group.alone else RankExchange(layer, group)


def swap_blocks(rows_RD: Tensor, outer: int, slots: int) -> Tensor:
    """Blocks of c rows from (outer, inner) order to (inner, outer) order: from ranks to experts, or back.

    With c = 1, two ranks and two experts, and rows named by rank and expert:
        arrived   0a 0b 1a 1b   (outer = 2)
        result    0a 1a 0b 1b
    """
    num_rows, dim = rows_RD.shape
    return rows_RD.view(outer, -1, slots, dim).transpose(0, 1).reshape(num_rows, dim)


def rank_shares(rows: ExpertRows, local_experts: int) -> list[int]:
    """How many rows go to the experts of each rank, (N,)."""
    bounds = torch.as_tensor(rows.offsets)[::local_experts]
    shares: list[int] = bounds.diff().tolist()
    return shares


def expert_order(sizes_NL: Tensor, num_rows: int) -> Tensor:
    """For each row in (expert, source) order, its index in (source, expert) order, (R,).

    `sizes_NL` counts the rows of every source and expert. With sizes [[2, 1], [1, 2]], and rows named by source and expert:
        arrived   0a 0a 0b 1a 1b 1b
        order     0  1  3  2  4  5
        selected  0a 0a 1a 0b 1b 1b
    """
    sizes_LN = sizes_NL.t().flatten()
    begins_LN = (sizes_NL.flatten().cumsum(0) - sizes_NL.flatten()).view_as(sizes_NL).t().flatten()
    shifts_LN = begins_LN - (sizes_LN.cumsum(0) - sizes_LN)
    return torch.arange(num_rows, device=sizes_NL.device) + shifts_LN.repeat_interleave(sizes_LN, output_size=num_rows)
