"""Multi-head self-attention and cross-attention, with a cache of keys and values.

B sequences, L queries, M keys, D width, H heads, W width per head.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moeprof.models.positions import Positions


@dataclass(eq=False)
class KeyValueCache:
    """Keys and values of one attention, filled from the left; room for `keys_BHMW.shape[2]` positions."""

    keys_BHMW: Tensor
    values_BHMW: Tensor
    length: int = 0

    def append(self, keys_BHLW: Tensor, values_BHLW: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions and returns all keys and values cached so far."""
        first, self.length = self.length, self.length + keys_BHLW.shape[2]
        self.keys_BHMW[:, :, first : self.length] = keys_BHLW
        self.values_BHMW[:, :, first : self.length] = values_BHLW
        return self.keys_BHMW[:, :, : self.length], self.values_BHMW[:, :, : self.length]


class Attention(nn.Module):
    """Four projections with biases around scaled_dot_product_attention."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def heads(self, x_BLD: Tensor) -> Tensor:
        """Splits (B, L, D) into heads, (B, H, L, W)."""
        batch_size, length, dim = x_BLD.shape
        return x_BLD.view(batch_size, length, self.num_heads, dim // self.num_heads).transpose(1, 2)

    def forward(
        self,
        x_BLD: Tensor,
        positions: Positions,
        *,
        causal: bool,
        keys_real_BM: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Self-attention; `keys_real_BM` is False for keys that are padding."""
        first = cache.length if cache else 0
        queries = positions.rotate(self.heads(self.q(x_BLD)), first)
        keys, values = positions.rotate(self.heads(self.k(x_BLD)), first), self.heads(self.v(x_BLD))
        if cache:
            keys, values = cache.append(keys, values)
        num_queries, num_keys = queries.shape[2], keys.shape[2]
        bias = positions.bias(num_queries, num_keys, causal=causal, like=queries)
        bias = None if bias is None else bias[None]  # torch's fused CPU kernel takes masks of two or four dimensions
        if bias is None and causal and num_queries > 1 and (num_queries < num_keys or keys_real_BM is not None):
            bias = torch.ones(num_queries, num_keys, dtype=torch.bool, device=x_BLD.device).tril(num_keys - num_queries)
        if keys_real_BM is not None:
            bias = with_padding(bias, keys_real_BM)
        triangular = causal and bias is None and num_queries > 1
        y = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, is_causal=triangular)
        return self.project(y)

    def cross(self, x_BLD: Tensor, memory: KeyValueCache, keys_real_BM: Tensor | None) -> Tensor:
        """Attention over an encoder's output, whose keys and values are in `memory`."""
        mask = None if keys_real_BM is None else keys_real_BM[:, None, None]
        y = F.scaled_dot_product_attention(self.heads(self.q(x_BLD)), memory.keys_BHMW, memory.values_BHMW, attn_mask=mask)
        return self.project(y)

    def remember(self, memory_BMD: Tensor) -> KeyValueCache:
        """Keys and values of an encoder's output, computed once per sentence."""
        return KeyValueCache(self.heads(self.k(memory_BMD)), self.heads(self.v(memory_BMD)), memory_BMD.shape[1])

    def project(self, y_BHLW: Tensor) -> Tensor:
        projected: Tensor = self.out(y_BHLW.transpose(1, 2).flatten(2))
        return projected


def with_padding(bias: Tensor | None, keys_real_BM: Tensor) -> Tensor:
    """The mask or bias with padded keys hidden from every query, (B, 1 or H, 1 or L, M)."""
    real = keys_real_BM[:, None, None]
    if bias is None:
        return real
    return bias & real if bias.dtype == torch.bool else torch.where(real, bias, -torch.inf)
