"""A forward pass of a small model on fixed tokens, plain and captured."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from moeprof.huggingface.capture import Call, Capture
from moeprof.huggingface.sites import find_sites

TOKENS_BL = torch.arange(5, 29).view(2, 12)
"""Two sequences of twelve."""


def forward(model: PreTrainedModel, tokens_BL: Tensor = TOKENS_BL) -> Tensor:
    """The last hidden states, or the logits if the model has a head, of one forward pass without a cache."""
    decoder = {"decoder_input_ids": tokens_BL} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        output: Tensor = model(input_ids=tokens_BL, use_cache=False, **decoder)[0]
    return output


def captured(model: PreTrainedModel, tokens_BL: Tensor = TOKENS_BL, *, scores: bool = False) -> tuple[Tensor, list[Call]]:
    """The output of `forward`, and the calls that the hooks saw."""
    calls: list[Call] = []
    with Capture(find_sites(model), calls.append, scores=scores):
        output = forward(model, tokens_BL)
    return output, calls


def num_hooks(model: PreTrainedModel) -> int:
    """Forward hooks on all modules of the model."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
