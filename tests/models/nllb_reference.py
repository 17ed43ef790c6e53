"""The forward pass of NLLB-MoE in float64 and plain loops over tokens: what our encoder-decoder is held against.

Written from the description of the model and the names in its files, with none of the package's code.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]


class Reference:
    """A model, by the tensors of its files and the keys of its config.json."""

    def __init__(self, tensors: dict[str, Array], config: Any) -> None:
        self.tensors, self.config = tensors, config
        self.dropped: list[int] = []
        """Choices that found their expert full, per MoE layer that has run."""

    def logits(self, source_BM: Ids, source_real: Mask, target_BL: Ids, target_real: Mask) -> Array:
        """Logits (B, L, V) of right-padded sentences."""
        memory = self.stack("encoder", source_BM, source_real, None, None)
        y_BLD = self.stack("decoder", target_BL, target_real, memory, source_real)
        result: Array = y_BLD @ self.tensors["model.shared.weight"].T
        return result

    def stack(self, name: str, ids: Ids, real: Mask, memory: Array | None, memory_real: Mask | None) -> Array:
        x = self.embedded(ids)
        causal = np.tril(np.ones((ids.shape[1], ids.shape[1]), dtype=bool)) if memory is not None else np.True_
        for layer in range(getattr(self.config, f"{name}_layers")):
            path = f"model.{name}.layers.{layer}"
            normed = self.norm(f"{path}.self_attn_layer_norm", x)
            x = x + self.attention(f"{path}.self_attn", name, normed, normed, real[:, None, :] & causal)
            if memory is not None and memory_real is not None:
                normed = self.norm(f"{path}.cross_attention_layer_norm", x)
                x = x + self.attention(f"{path}.cross_attention", name, normed, memory, memory_real[:, None, :])
            normed = self.norm(f"{path}.ff_layer_norm", x)
            step = getattr(self.config, f"{name}_sparse_step")
            sparse = step > 0 and (layer + 1) % step == 0
            flat = normed.reshape(-1, normed.shape[-1])
            y = self.experts(f"{path}.ffn", flat, real.reshape(-1)) if sparse else self.ffn(f"{path}.ffn", flat)
            x = x + y.reshape(x.shape)
        return self.norm(f"model.{name}.layer_norm", x)

    def embedded(self, ids: Ids) -> Array:
        """Scaled embeddings plus sines and cosines; the first position has the number behind the id of padding."""
        dim, half = self.config.d_model, self.config.d_model // 2
        scale = math.sqrt(dim) if self.config.scale_embedding else 1.0
        positions = self.config.pad_token_id + 1 + np.arange(ids.shape[1], dtype=np.float64)
        angles = positions[:, None] * np.exp(-math.log(10_000) / (half - 1) * np.arange(half))
        result: Array = self.tensors["model.shared.weight"][ids] * scale + np.concatenate(
            [np.sin(angles), np.cos(angles)], axis=1
        )
        return result

    def linear(self, path: str, x: Array) -> Array:
        return x @ self.tensors[f"{path}.weight"].T + self.tensors[f"{path}.bias"]

    def norm(self, path: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return scaled * self.tensors[f"{path}.weight"] + self.tensors[f"{path}.bias"]

    def attention(self, path: str, stack: str, x: Array, memory: Array, visible: Mask) -> Array:
        heads = getattr(self.config, f"{stack}_attention_heads")
        width = x.shape[-1] // heads
        queries, keys, values = (
            self.linear(f"{path}.{part}_proj", of).reshape(*of.shape[:2], heads, width).transpose(0, 2, 1, 3)
            for part, of in (("q", x), ("k", memory), ("v", memory))
        )
        scores = queries @ keys.transpose(0, 1, 3, 2) / math.sqrt(width)
        mixed = softmax(np.where(visible[:, None], scores, -1e30)) @ values
        return self.linear(f"{path}.out_proj", mixed.transpose(0, 2, 1, 3).reshape(x.shape))

    def ffn(self, path: str, x: Array) -> Array:
        return self.linear(f"{path}.fc2", np.maximum(self.linear(f"{path}.fc1", x), 0.0))

    def experts(self, path: str, x: Array, real: Mask) -> Array:
        """All first choices queue up in the order of tokens, then all second ones; padding joins no queue."""
        probs = softmax(x @ self.tensors[f"{path}.router.classifier.weight"].T)
        chosen = np.argsort(-probs, axis=1, kind="stable")[:, :2]
        capacity = math.ceil(self.config.moe_eval_capacity_token_fraction * len(x))
        queued = [0] * probs.shape[1]
        kept = np.zeros(chosen.shape, dtype=bool)
        for choice in range(2):
            for token in np.flatnonzero(real):
                expert = chosen[token, choice]
                kept[token, choice] = queued[expert] < capacity
                queued[expert] += 1
        self.dropped.append(int((real[:, None] & ~kept).sum()))
        y = np.zeros_like(x)
        for token, choice in np.argwhere(kept):
            pair = probs[token, chosen[token]]
            counted = pair if self.config.normalize_router_prob_before_dropping else pair * kept[token]
            weight = pair[choice] / counted.sum() * (1 - self.config.moe_token_dropout)
            y[token] += weight * self.ffn(f"{path}.experts.expert_{chosen[token, choice]}", x[token])
        return y


def softmax(scores: Array) -> Array:
    powers: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
