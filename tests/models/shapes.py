"""Small recipes of both workloads, and models of them with weights at which every part matters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moeprof.instrument.probe import Probe
from moeprof.instrument.step import Step
from moeprof.models.build import Model, build_model
from moeprof.models.language_model import LanguageModel
from moeprof.models.translation_model import Memory, TranslationModel
from moeprof.records.recipe.recipe import Recipe

POSITIONS = ("sinusoidal", "rotary", "alibi")
ALL_REAL = Step(real_T=None)

every_form = pytest.mark.parametrize(
    "form",
    [
        {"ffn": "mlp"},
        {"ffn": "mlp", "ffn_bias": False},
        {"ffn": "gated", "activation": "silu"},
        {"ffn": "gated", "activation": "gelu", "ffn_bias": False},
    ],
    ids=["mlp", "mlp-no_bias", "gated", "gated-no_bias"],
)
"""Keys of [model] for each FFN form, with and without biases."""


def small(
    workload: str, *, capacity_fraction: float = 1.0, top_k: int = 2, seed: int = 0, device: str = "cpu", **model: Any
) -> Recipe:
    """Four layers (MT: two of each stack), every second one with four experts; nothing is dropped unless C says so."""
    shape = {
        "encoder_layers": 2 if workload == "mt" else 0,
        "decoder_layers": 2 if workload == "mt" else 4,
        "dim": 16,
        "ffn_dim": 24,
        "heads": 2,
        "vocab_size": 270,
        "experts": 4,
        "moe_every": 2,
        "activation": "relu" if workload == "mt" else "gelu",
        "tokenizer": "bytes",
    }
    document = {
        "workload": workload,
        "model": shape | model,
        "gating": {"top_k": top_k, "capacity_fraction": capacity_fraction},
        "load": {"batch_size": 2, "sequence_length": 16},
        "measure": {"seed": seed, "device": device},
    }
    return Recipe.model_validate(document)


def lively(model: Model) -> Model:
    """Biases and norms get values too, so that forgetting one would show."""
    random = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1 or parameter.eq(0).all():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random).to(parameter.device))
    return model


def language_model(**shape: Any) -> LanguageModel:
    model = lively(build_model(small("lm", **shape)))
    assert isinstance(model, LanguageModel)
    return model


def translation_model(**shape: Any) -> TranslationModel:
    model = lively(build_model(small("mt", **shape)))
    assert isinstance(model, TranslationModel)
    return model


def words(batch_size: int, length: int, seed: int = 0, device: str = "cpu") -> Tensor:
    """Token ids (B, L)."""
    return torch.from_numpy(np.random.default_rng(seed).integers(4, 270, (batch_size, length))).to(device)


def real_up_to(lengths: list[int], length: int, device: str = "cpu") -> Tensor:
    """Which positions of right-padded sequences are real, (B, L)."""
    return torch.arange(length, device=device) < torch.tensor(lengths, device=device)[:, None]


def step_of(real_BL: Tensor) -> Step:
    return Step(real_T=real_BL.flatten())


def remembered(model: TranslationModel, source_BM: Tensor, step: Step = ALL_REAL) -> Memory:
    """Encoded, as the decoder sees it."""
    return model.remember(model.encode(source_BM, step), step)


class Regions(Probe):
    """The regions entered, in order; they never nest."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.inside = False

    @contextmanager
    def region(self, name: str, layer: str) -> Iterator[None]:
        assert not self.inside
        self.inside = True
        self.names.append(f"{layer} {name}".strip())
        yield
        self.inside = False
