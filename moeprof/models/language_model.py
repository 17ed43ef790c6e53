"""The decoder-only transformer of the LM workload.

B sequences, L positions, V vocabulary.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from moeprof.instrument.step import Step
from moeprof.models.attention import KeyValueCache
from moeprof.models.transformer import Embedding, Layer, empty_caches, make_layers
from moeprof.records.recipe.recipe import Recipe


class LanguageModel(nn.Module):
    """A causal, pre-norm transformer whose input and output embeddings are tied."""

    def __init__(self, recipe: Recipe, *, dense: bool = False) -> None:
        super().__init__()
        self.embedding = Embedding(recipe)
        self.layers = make_layers("", recipe.own_model.decoder_layers, recipe, dense=dense)
        self.norm = nn.LayerNorm(recipe.own_model.dim)
        self.step: Step | None = None
        """The forward pass that is running."""

    def forward(self, tokens_BL: Tensor, step: Step, caches: Sequence[KeyValueCache] | None = None) -> Tensor:
        """Logits (B, L, V); with caches, the tokens continue the cached sequences."""
        self.step = step
        x_BLD = self.embedding(tokens_BL, caches[0].length if caches else 0)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            x_BLD = layer.attend(x_BLD, self.embedding.positions, causal=True, cache=caches[index] if caches else None)
            x_BLD = layer.feed_forward(x_BLD, step)
        return self.embedding.head(x_BLD, self.norm)

    def empty_caches(self, batch_size: int, num_positions: int) -> list[KeyValueCache]:
        """Empty key and value caches for decoding."""
        return empty_caches(self.layers, batch_size, num_positions)
