"""The encoder-decoder transformer of the MT workload, as in NLLB.

B sentences, M source positions, L target positions, D width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from moeprof.instrument.probe import region
from moeprof.instrument.step import Step
from moeprof.models.attention import KeyValueCache
from moeprof.models.transformer import Embedding, Layer, empty_caches, make_layers
from moeprof.records.recipe.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Memory:
    """Encoded sentences as the decoder reads them: keys and values per decoder layer, and a padding mask."""

    caches: list[KeyValueCache]
    real_BM: Tensor | None


class TranslationModel(nn.Module):
    """A pre-norm transformer with one embedding for source, target and head."""

    def __init__(self, recipe: Recipe, *, dense: bool = False) -> None:
        super().__init__()
        model = recipe.own_model
        self.embedding = Embedding(recipe)
        self.encoder = make_layers("enc.", model.encoder_layers, recipe, dense=dense)
        self.encoder_norm = nn.LayerNorm(model.dim)
        self.decoder = make_layers("dec.", model.decoder_layers, recipe, dense=dense, cross=True)
        self.norm = nn.LayerNorm(model.dim)
        self.step: Step | None = None
        """The forward pass that is running."""

    def encode(self, source_BM: Tensor, step: Step) -> Tensor:
        """The encoded source (B, M, D)."""
        self.step = step
        real_BM = None if step.real_T is None else step.real_T.view_as(source_BM)
        x_BMD = self.embedding(source_BM)
        for layer in self.encoder:
            assert isinstance(layer, Layer)
            x_BMD = layer.attend(x_BMD, self.embedding.positions, causal=False, real_BL=real_BM)
            x_BMD = layer.feed_forward(x_BMD, step)
        encoded: Tensor = self.encoder_norm(x_BMD)
        return encoded

    def remember(self, encoded_BMD: Tensor, step: Step) -> Memory:
        """Keys and values for every cross-attention; `step` is that of the encoder."""
        caches = []
        for layer in self.decoder:
            assert isinstance(layer, Layer)
            assert layer.cross_attention is not None
            with region("cross_attention", layer.name):
                caches.append(layer.cross_attention.remember(encoded_BMD))
        return Memory(caches, None if step.real_T is None else step.real_T.view(encoded_BMD.shape[:2]))

    def forward(self, target_BL: Tensor, memory: Memory, step: Step, caches: Sequence[KeyValueCache] | None = None) -> Tensor:
        """Logits (B, L, V); with caches, the tokens continue the cached sequences."""
        self.step = step
        x_BLD = self.embedding(target_BL, caches[0].length if caches else 0)
        for index, layer in enumerate(self.decoder):
            assert isinstance(layer, Layer)
            x_BLD = layer.attend(x_BLD, self.embedding.positions, causal=True, cache=caches[index] if caches else None)
            x_BLD = layer.attend_across(x_BLD, memory.caches[index], memory.real_BM)
            x_BLD = layer.feed_forward(x_BLD, step)
        return self.embedding.head(x_BLD, self.norm)

    def empty_caches(self, batch_size: int, num_positions: int) -> list[KeyValueCache]:
        """Empty key and value caches for decoding."""
        return empty_caches(self.decoder, batch_size, num_positions)
