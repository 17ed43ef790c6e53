"""Tiny random NLLB-MoE models of transformers, with weights at which every part matters, and folders of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from transformers import NllbMoeConfig, NllbMoeForConditionalGeneration
from transformers.models.nllb_moe.modeling_nllb_moe import NllbMoeExperts

from moeprof.models.build import build_model
from moeprof.models.nllb import recipe_of
from moeprof.models.translation_model import TranslationModel
from moeprof.records.recipe.files import validated
from moeprof.records.recipe.recipe import Recipe

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

VOCABULARY, EXPERTS = 300, 8


def nllb_config(**changes: Any) -> NllbMoeConfig:
    """Width 32, 4 + 4 layers of which every second is an MoE layer with 8 experts."""
    shape = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "num_experts": EXPERTS,
        "moe_eval_capacity_token_fraction": 1.0,
        **{f"{stack}_layers": 4 for stack in ("encoder", "decoder")},
        **{f"{stack}_ffn_dim": 48 for stack in ("encoder", "decoder")},
        **{f"{stack}_attention_heads": 4 for stack in ("encoder", "decoder")},
        **{f"{stack}_sparse_step": 2 for stack in ("encoder", "decoder")},
    }
    return NllbMoeConfig(**(shape | changes))


def nllb_model(seed: int = 0, **changes: Any) -> NllbMoeForConditionalGeneration:
    """In evaluation mode; biases and norms get values too, and routers prefer some experts clearly."""
    torch.manual_seed(seed)
    model = NllbMoeForConditionalGeneration(nllb_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_((0.3 if parameter.dim() == 1 or "router" in name else 0.1) * torch.randn(parameter.shape))
    return model


def nllb_folder(folder: Path, seed: int = 0, *, max_shard_size: str = "5GB", **changes: Any) -> Path:
    """A saved model."""
    nllb_model(seed, **changes).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def recipe_in(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Recipe:
    """The recipe of a folder, changed first."""
    document = recipe_of(folder)
    change(document)
    return validated(document, str(folder))


def ours_in(folder: Path) -> TranslationModel:
    """Our model with the weights of a folder."""
    model = build_model(recipe_in(folder))
    assert isinstance(model, TranslationModel)
    return model


def route_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrects transformers: every expert computes all tokens, and its outputs count with the weights that the router gives."""

    def forward(self: Any, hidden_states: Tensor, router_mask: Tensor, router_probs: Tensor) -> Tensor:
        outputs = torch.stack([self[f"expert_{expert}"](hidden_states) for expert in range(self.num_experts)], dim=1)
        weighted: Tensor = (outputs * router_probs[:, :, None]).sum(dim=1)
        return weighted * (1 - self.moe_token_dropout)

    monkeypatch.setattr(NllbMoeExperts, "forward", forward)


def tensors_of(model: NllbMoeForConditionalGeneration) -> dict[str, np.typing.NDArray[np.float64]]:
    """All tensors in float64."""
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
