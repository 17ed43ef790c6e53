"""How attention knows positions: sinusoidal, rotary or ALiBi, none of them with parameters.

B sequences, H heads, L queries, M keys, D width, W width per head.
"""

import math
from typing import Protocol

import torch
from torch import Tensor


class Positions(Protocol):
    """What a kind of positions adds, each where it applies."""

    def embed(self, x_BLD: Tensor, first: int) -> Tensor:
        """Token embeddings with positions `first`, `first` + 1, ..."""
        ...

    def rotate(self, heads_BHLW: Tensor, first: int) -> Tensor:
        """Queries or keys of self-attention."""
        ...

    def bias(self, num_queries: int, num_keys: int, *, causal: bool, like: Tensor) -> Tensor | None:
        """Added to the scores of self-attention, (H, L, M); None where nothing is. The last query is the last key."""
        ...


class Sinusoidal:
    """Vaswani et al. 2017, sines then cosines as in fairseq; added to the embeddings."""

    def embed(self, x_BLD: Tensor, first: int) -> Tensor:
        num_positions, dim = x_BLD.shape[1:]
        half = dim // 2
        rates = torch.exp(torch.arange(half, device=x_BLD.device) * (-math.log(10_000) / max(half - 1, 1)))
        angles = torch.arange(first, first + num_positions, device=x_BLD.device)[:, None] * rates
        table_LD = torch.cat([angles.sin(), angles.cos()], dim=1)
        return x_BLD + torch.nn.functional.pad(table_LD, (0, dim - 2 * half)).to(x_BLD.dtype)

    def rotate(self, heads_BHLW: Tensor, first: int) -> Tensor:
        return heads_BHLW

    def bias(self, num_queries: int, num_keys: int, *, causal: bool, like: Tensor) -> Tensor | None:
        return None


class Rotary(Sinusoidal):
    """Su et al. 2021: pairs of a head's halves turned by an angle that grows with the position."""

    def embed(self, x_BLD: Tensor, first: int) -> Tensor:
        return x_BLD

    def rotate(self, heads_BHLW: Tensor, first: int) -> Tensor:
        length, width = heads_BHLW.shape[-2:]
        rates = 10_000 ** (-torch.arange(0, width, 2, device=heads_BHLW.device) / width)
        angles = torch.arange(first, first + length, device=heads_BHLW.device)[:, None] * rates
        cos, sin = angles.cos().to(heads_BHLW.dtype), angles.sin().to(heads_BHLW.dtype)
        left, right = heads_BHLW.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)


class Alibi(Sinusoidal):
    """Press et al. 2021: scores fall with distance, by a slope per head; both ways in an encoder."""

    def __init__(self, num_heads: int) -> None:
        self.num_heads = num_heads

    def embed(self, x_BLD: Tensor, first: int) -> Tensor:
        return x_BLD

    def bias(self, num_queries: int, num_keys: int, *, causal: bool, like: Tensor) -> Tensor | None:
        keys = torch.arange(num_keys, device=like.device)
        distance_LM = keys[num_keys - num_queries :, None] - keys
        slopes_H = 2 ** (-8 * torch.arange(1, self.num_heads + 1, device=like.device) / self.num_heads)
        bias_HLM = -slopes_H[:, None, None] * distance_LM.abs()
        return (bias_HLM.masked_fill(distance_LM < 0, -torch.inf) if causal else bias_HLM).to(like.dtype)


def make_positions(kind: str, num_heads: int) -> Positions:
    """The positions a recipe names."""
    if kind == "alibi":
        return Alibi(num_heads)
    return Rotary() if kind == "rotary" else Sinusoidal()
