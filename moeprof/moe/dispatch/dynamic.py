"""Dynamic gating, the paper's first optimization: every expert gets exactly the rows of its own tokens.

T tokens, K choices, N = T x K, E experts, R rows = K x tokens that are no padding, D width. O(TD + T log T), no capacity, no
drop. The host knows every size in advance, so that nothing waits for the device.
"""

import torch
from torch import Tensor

from moeprof.moe.dispatch.indexed import IndexedDispatched
from moeprof.moe.exchange import LOCAL, Exchange
from moeprof.moe.experts import ExpertRows
from moeprof.moe.routing import Routing


def dispatch(x_TD: Tensor, routing: Routing, _capacity_fraction: float, exchange: Exchange = LOCAL) -> IndexedDispatched:
    """Stable sort of the choices by expert, then one gather (paper section IV; the search replaces its bincount)."""
    top_k, device = routing.experts_TK.shape[1], x_TD.device
    num_rows = top_k * routing.num_real
    sorted_N, order_N = torch.sort(routing.queues().flatten(), stable=True)  # padding comes last
    offsets = torch.searchsorted(sorted_N, torch.arange(routing.num_experts + 1, device=device), out_int32=True)
    exchange.announce(offsets)  # before the tokens are reordered, so that the two overlap
    rows_N = torch.arange(len(order_N), device=device).clamp_(max=max(num_rows - 1, 0))
    row_TK = torch.empty_like(order_N).scatter_(0, order_N, rows_N).view(-1, top_k)
    rows_RD = x_TD.index_select(0, order_N[:num_rows] // top_k)
    return IndexedDispatched(ExpertRows(rows_RD, offsets), None, row_TK, routing.weights().to(x_TD.dtype))
