"""Pre-norm transformer layers with a dense FFN or an MoE layer, and the embedding.

B sequences, L positions, D width, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn

from moeprof.instrument.probe import region
from moeprof.instrument.step import Step
from moeprof.models.attention import Attention, KeyValueCache
from moeprof.models.positions import Positions, make_positions
from moeprof.moe.experts import make_ffn
from moeprof.moe.layer import MoELayer
from moeprof.records.ffn.form import Matrix
from moeprof.records.recipe.model import ModelSection
from moeprof.records.recipe.recipe import Recipe


class DenseFFN(nn.Module):
    """An FFN of the recipe's form that is the same for every token."""

    def __init__(self, model: ModelSection) -> None:
        super().__init__()
        for matrix in model.ffn_form.matrices:
            self.add_module(matrix.name, nn.Linear(*matrix.shape(model.dim, model.ffn_dim), bias=model.ffn_bias))
        self.ffn = make_ffn(model.ffn_form, model.activation)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.ffn(x_BLD, self.product)

    def product(self, x_BLM: Tensor, matrix: Matrix) -> Tensor:
        """Rows times a matrix, plus its bias if it has one."""
        y_BLN: Tensor = getattr(self, matrix.name)(x_BLM)
        return y_BLN


class Layer(nn.Module):
    """Self-attention, cross-attention if there is an encoder, and an FFN, each after a norm and with a residual."""

    def __init__(self, name: str, recipe: Recipe, *, sparse: bool, cross: bool) -> None:
        super().__init__()
        model = recipe.own_model
        self.name = name
        self.attention_norm, self.attention = nn.LayerNorm(model.dim), Attention(model.dim, model.heads)
        self.cross_norm = nn.LayerNorm(model.dim) if cross else None
        self.cross_attention = Attention(model.dim, model.heads) if cross else None
        self.ffn_norm = nn.LayerNorm(model.dim)
        self.ffn = MoELayer(name, recipe) if sparse else DenseFFN(model)

    def attend(
        self,
        x_BLD: Tensor,
        positions: Positions,
        *,
        causal: bool,
        real_BL: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The self-attention sublayer with its residual."""
        with region("attention", self.name):
            normed = self.attention_norm(x_BLD)
            attended_BLD: Tensor = self.attention(normed, positions, causal=causal, keys_real_BM=real_BL, cache=cache)
            return x_BLD + attended_BLD

    def attend_across(self, x_BLD: Tensor, memory: KeyValueCache, memory_real_BM: Tensor | None) -> Tensor:
        """The cross-attention sublayer with its residual."""
        assert self.cross_norm is not None
        assert self.cross_attention is not None
        with region("cross_attention", self.name):
            attended_BLD = self.cross_attention.cross(self.cross_norm(x_BLD), memory, memory_real_BM)
            return x_BLD + attended_BLD

    def feed_forward(self, x_BLD: Tensor, step: Step) -> Tensor:
        """The FFN sublayer with its residual."""
        if isinstance(self.ffn, MoELayer):
            y_TD: Tensor = self.ffn(self.ffn_norm(x_BLD).flatten(0, 1), step)
            return x_BLD + y_TD.view_as(x_BLD)
        with region("dense_ffn", self.name):
            y_BLD: Tensor = x_BLD + self.ffn(self.ffn_norm(x_BLD))
            return y_BLD


class Embedding(nn.Module):
    """Token embeddings, scaled by sqrt(D) if the recipe says so, with positions; the head uses the same matrix."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        model = recipe.own_model
        self.weight = nn.Parameter(torch.empty(model.vocab_size, model.dim))
        self.scale = math.sqrt(model.dim) if model.scale_embedding else 1.0
        self.positions = make_positions(model.positions, model.heads, model.first_position)

    def forward(self, tokens_BL: Tensor, first: int = 0) -> Tensor:
        with region("embed"):
            x_BLD = nn.functional.embedding(tokens_BL, self.weight) * self.scale
            return self.positions.embed(x_BLD, first)

    def head(self, x_BLD: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Logits (B, L, V)."""
        with region("head"):
            normed_BLD: Tensor = norm(x_BLD)
            return normed_BLD @ self.weight.t()


def make_layers(stack: str, num_layers: int, recipe: Recipe, *, dense: bool, cross: bool = False) -> nn.ModuleList:
    """The layers of one stack; with `dense`, none is an MoE layer."""
    sparse = () if dense else recipe.own_model.moe_layers_of("all")
    return nn.ModuleList(
        Layer(name, recipe, sparse=name in sparse, cross=cross) for name in (f"{stack}{index}" for index in range(num_layers))
    )


def empty_caches(layers: nn.ModuleList, batch_size: int, num_positions: int) -> list[KeyValueCache]:
    """Empty caches for the keys and values of every layer's self-attention."""
    caches = []
    for layer in layers:
        assert isinstance(layer, Layer)
        weight, num_heads = layer.attention.k.weight, layer.attention.num_heads
        shape = (batch_size, num_heads, num_positions, weight.shape[0] // num_heads)
        caches.append(KeyValueCache(weight.new_zeros(shape), weight.new_zeros(shape)))
    return caches
