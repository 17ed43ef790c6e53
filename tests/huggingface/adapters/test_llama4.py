"""Llama 4 multiplies the input of every expert by its score, which is 0 unless the expert was chosen."""

import torch

from moeprof.huggingface.tally import expert_counts
from tests.huggingface.architectures import build
from tests.huggingface.forward import TOKENS_BL, captured
from tests.huggingface.small_models import TOP_K


def test_choices_are_the_scores_that_are_not_zero() -> None:
    model = build("llama4")
    scores_TE: list[torch.Tensor] = []
    for name, module in model.named_modules():
        if name.endswith("router"):
            module.register_forward_hook(lambda module, args, output: scores_TE.append(output[0]))
    _, calls = captured(model)
    assert len(calls) == len(scores_TE) > 0
    for call, layer_TE in zip(calls, scores_TE, strict=True):
        assert torch.equal(expert_counts(call), (layer_TE > 0).sum(dim=0))
        assert torch.equal(torch.zeros_like(layer_TE).scatter_(1, call.experts_TK, call.weights_TK), layer_TE)
        assert call.experts_TK.shape == (TOKENS_BL.numel(), TOP_K)
