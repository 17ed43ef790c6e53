"""Position encodings without parameters: sinusoidal, rotary and ALiBi.

B sequences, H heads, L queries, M keys, D width, W width per head.
"""

import math
from typing import Protocol

import torch
from torch import Tensor


class Positions(Protocol):
    """A position encoding; each kind acts in one of three places."""

    def embed(self, x_BLD: Tensor, first: int) -> Tensor:
        """Adds positions `first`, `first` + 1, ... to token embeddings."""
        ...

    def rotate(self, heads_BHLW: Tensor, first: int) -> Tensor:
        """Rotates queries or keys of self-attention by their positions."""
        ...

    def bias(self, num_queries: int, num_keys: int, *, causal: bool, like: Tensor) -> Tensor | None:
        """A bias for the scores of self-attention, (H, L, M), or None. The last query is at the position of the last key."""
        ...


class Sinusoidal:
    """Vaswani et al. 2017, sines then cosines as in fairseq; added to the embeddings."""

    def __init__(self, first_position: int = 0) -> None:
        """`first_position` is the number of a sequence's first position."""
        self.first_position = first_position

    def embed(self, x_BLD: Tensor, first: int) -> Tensor:
        num_positions, dim = x_BLD.shape[1:]
        first += self.first_position
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
    """Su et al. 2021: pairs of elements of a head are rotated by an angle that grows with the position."""

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
    """Press et al. 2021: scores decrease with distance, by a slope per head; in both directions in an encoder."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def embed(self, x_BLD: Tensor, first: int) -> Tensor:
        return x_BLD

    def bias(self, num_queries: int, num_keys: int, *, causal: bool, like: Tensor) -> Tensor | None:
        keys = torch.arange(num_keys, device=like.device)
        distance_LM = keys[num_keys - num_queries :, None] - keys
        slopes_H = 2 ** (-8 * torch.arange(1, self.num_heads + 1, device=like.device) / self.num_heads)
        bias_HLM = -slopes_H[:, None, None] * distance_LM.abs()
        return (bias_HLM.masked_fill(distance_LM < 0, -torch.inf) if causal else bias_HLM).to(like.dtype)


def make_positions(kind: str, num_heads: int, first_position: int = 0) -> Positions:
    """The position encoding with the name that a recipe gives; only sinusoidal ones use `first_position`."""
    if kind == "alibi":
        return Alibi(num_heads)
    return Rotary() if kind == "rotary" else Sinusoidal(first_position)
