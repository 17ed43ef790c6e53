"""Tutel's mode of fairseq: scatter and gather replace the mask; padded buffers and the arithmetic of their slots stay.

T tokens, K choices, E experts, c slots per expert, R = E x c rows, D width.
"""

import torch
from torch import Tensor

from moeprof.moe.dispatch.indexed import IndexedDispatched
from moeprof.moe.exchange import LOCAL, Exchange
from moeprof.moe.experts import ExpertRows
from moeprof.moe.routing import Routing, positions_in_expert
from moeprof.records.recipe.gating import capacity


def dispatch_dropless(
    x_TD: Tensor, routing: Routing, _capacity_fraction: float, exchange: Exchange = LOCAL
) -> IndexedDispatched:
    """Tutel with capacity factor 0: the largest load of any rank is the capacity, so that no choice is dropped."""
    return dispatch(x_TD, routing, 1.0, exchange, dropless=True)


def dispatch(
    x_TD: Tensor, routing: Routing, capacity_fraction: float, exchange: Exchange = LOCAL, *, dropless: bool = False
) -> IndexedDispatched:
    """Each capacity slot gathers its token, or zeros; `dropless`: the largest load of any rank is the capacity."""
    num_tokens, top_k = routing.experts_TK.shape
    position_TK = positions_in_expert(routing)
    slots = exchange.largest(largest_load(position_TK, routing)) if dropless else capacity(capacity_fraction, num_tokens)
    num_rows = routing.num_experts * slots
    dropped_TK = (position_TK >= slots) & routing.kept()
    cell_TK = routing.experts_TK * slots + position_TK.clamp(max=slots - 1)
    # A choice that does not count writes to a cell behind the last slot: no data-dependent shapes, no conflicts.
    target_TK = cell_TK.masked_fill(~routing.kept(dropped_TK), num_rows)
    source_R1 = torch.full((num_rows + 1,), num_tokens, device=x_TD.device)
    source_R1.scatter_(0, target_TK.flatten(), torch.arange(num_tokens, device=x_TD.device).repeat_interleave(top_k))
    rows_RD = torch.cat([x_TD, x_TD.new_zeros(1, x_TD.shape[1])]).index_select(0, source_R1[:-1])
    rows = ExpertRows(rows_RD, range(0, num_rows + 1, slots))
    return IndexedDispatched(rows, None if dropless else dropped_TK, cell_TK, routing.weights(dropped_TK).to(x_TD.dtype))


def largest_load(position_TK: Tensor, routing: Routing) -> int:
    """Choices of the busiest expert, at least 1; the host waits for the device here, as in Tutel."""
    return max(int(position_TK.masked_fill(~routing.kept(), -1).max()) + 1, 1)
