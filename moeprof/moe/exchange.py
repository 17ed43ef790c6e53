"""The exchange between dispatch and experts: rows travel to the ranks of their experts, and the outputs back.

N ranks, P physical experts, L = P / N experts of each rank (contiguous), R rows, c slots per expert, D width.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from moeprof.instrument.clock import synchronized, wall_clock
from moeprof.instrument.probe import collective_probe, region
from moeprof.moe.experts import ExpertRows
from moeprof.parallel.collectives import largest, start_all_to_all
from moeprof.parallel.group import Group
from moeprof.store.resident import Offsets

Splits = Sequence[int] | None
"""Rows for, or from, every rank; None where all get as many."""

Return = Callable[[Tensor], Tensor]
"""Takes the outputs of this rank's experts, and gives those of the rows that this rank sent, in their order."""

Expect = Callable[[Offsets], None]
"""Takes the bounds of the rows of this rank's experts."""


class Travel:
    """One all-to-all from its start to its end; tells the probe that asks for it, and looks at no clock otherwise."""

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
        """What arrived, source by source; `at_once` where the rank has waited for it since it started."""
        probe = collective_probe()
        if probe is None:
            return self.arriving.wait()
        waiting_ns = self.started_ns if at_once else wall_clock()
        arrived_ns = list(self.done_ns)
        rows = self.arriving.wait()
        end_ns = arrived_ns[0] if arrived_ns else synchronized(rows.device.type)()
        probe.exchanged(self.name, self.layer, self.to_bytes, self.started_ns, waiting_ns, end_ns)
        return rows


class Exchange:
    """One layer's all-to-alls in one step.

    Of padded slots (static, Tutel): one there and one back, equal for all ranks. Of tokens (dynamic gating): first the sizes, P
    whole numbers of every rank, on their way while the tokens are still reordered; then the tokens, and back (paper.md 4).
    """

    def __init__(self, layer: str, group: Group) -> None:
        self.layer, self.group = layer, group
        self.sizes: Travel | None = None

    def agreed(self, slots: int) -> int:
        """The most slots that any rank needs: Tutel's all-reduce of the dropless capacity."""
        return largest(self.group, [slots])[0]

    def announce(self, offsets: Tensor) -> None:
        """Starts the all-to-all of sizes; `offsets` (P + 1,) bound the rows of every expert."""
        self.sizes = Travel("a2a_sizes", self.layer, self.group, offsets.diff().long())

    def there(self, rows: ExpertRows, expect: Expect = lambda _: None) -> tuple[ExpertRows, Return]:
        """The rows of this rank's experts from all ranks, expert by expert and those of rank 0 first; and their way back.

        `expect` is told the bounds of these rows as soon as they are known, before the rows travel.
        """
        if isinstance(rows.offsets, range):
            return self.slots_there(rows.rows_RD, rows.offsets.step, expect)
        return self.tokens_there(rows, expect)

    def slots_there(self, rows_RD: Tensor, slots: int, expect: Expect) -> tuple[ExpertRows, Return]:
        """Full or not, all of them."""
        num_ranks = self.group.size
        mine = range(0, len(rows_RD) + 1, num_ranks * slots)
        expect(mine)
        arrived_RD = self.travelled("a2a_dispatch", rows_RD)
        with region("dispatch", self.layer):
            mine_RD = swapped(arrived_RD, num_ranks, slots)

        def back(outputs_RD: Tensor) -> Tensor:
            with region("combine", self.layer):
                leaving_RD = swapped(outputs_RD, len(outputs_RD) // (num_ranks * slots), slots)
            return self.travelled("a2a_combine", leaving_RD)

        return ExpertRows(mine_RD, mine), back

    def tokens_there(self, rows: ExpertRows, expect: Expect) -> tuple[ExpertRows, Return]:
        """As many as there are: the sizes must be known here before a token can be received."""
        assert self.sizes is not None
        with region("a2a_sizes", self.layer):
            sizes_NL = self.sizes.end().view(self.group.size, -1)
        with region("dispatch", self.layer):
            sent, received = rank_shares(rows, sizes_NL.shape[1]), sizes_NL.sum(dim=1).tolist()
            ends_L = sizes_NL.sum(dim=0).cumsum(0, dtype=torch.int32)
            offsets = torch.cat([ends_L.new_zeros(1), ends_L])
        expect(offsets)
        arrived_RD = self.travelled("a2a_dispatch", rows.rows_RD, sent, received)
        with region("dispatch", self.layer):
            order_R = expert_order(sizes_NL, len(arrived_RD))
            mine_RD = arrived_RD.index_select(0, order_R)

        def back(outputs_RD: Tensor) -> Tensor:
            with region("combine", self.layer):
                leaving_RD = torch.empty_like(outputs_RD).index_copy_(0, order_R, outputs_RD)
            return self.travelled("a2a_combine", leaving_RD, received, sent)

        return ExpertRows(mine_RD, offsets), back

    def travelled(self, name: str, rows_RD: Tensor, sent: Splits = None, received: Splits = None) -> Tensor:
        """One all-to-all that nothing overlaps."""
        with region(name, self.layer):
            return Travel(name, self.layer, self.group, rows_RD, sent, received).end(at_once=True)


def swapped(rows_RD: Tensor, outer: int, slots: int) -> Tensor:
    """Blocks of c slots from (outer, inner) order to (inner, outer): from sources to experts, or back."""
    num_rows, dim = rows_RD.shape
    return rows_RD.view(outer, -1, slots, dim).transpose(0, 1).reshape(num_rows, dim)


def rank_shares(rows: ExpertRows, local_experts: int) -> list[int]:
    """How many rows each rank's experts get, (N,)."""
    bounds = torch.as_tensor(rows.offsets)[::local_experts]
    shares: list[int] = bounds.diff().tolist()
    return shares


def expert_order(sizes_NL: Tensor, num_rows: int) -> Tensor:
    """Where each row of (expert, source) order stands among rows of (source, expert) order, (R,).

    `sizes_NL` counts the rows of every source and expert.
    """
    sizes_LN = sizes_NL.t().flatten()
    begins_LN = (sizes_NL.flatten().cumsum(0) - sizes_NL.flatten()).view_as(sizes_NL).t().flatten()
    shifts_LN = begins_LN - (sizes_LN.cumsum(0) - sizes_LN)
    return torch.arange(num_rows, device=sizes_NL.device) + shifts_LN.repeat_interleave(sizes_LN, output_size=num_rows)
