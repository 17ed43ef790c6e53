"""Routings drawn by hypothesis, MoE layers of any shape, and decisions to inject."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

from moeprof.instrument.step import Step
from moeprof.moe.kernels import KERNELS
from moeprof.moe.layer import MoELayer, use_variant
from moeprof.moe.routing import Routing
from moeprof.records.recipe.dispatch import DISPATCHES
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.store.resident import ExpertWeights, Offsets, Wave

from . import plain

GATES = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Few values, so that ties are common, and binary fractions, so that sums are exact."""

VARIANTS = [
    Variant(dispatch, kernel) for dispatch in DISPATCHES for kernel in KERNELS if (dispatch, kernel) != ("dynamic", "bmm")
]
"""Every way to execute a layer: `bmm` takes padded buffers only."""


def called(variant: Variant | None) -> str:
    """For a test's name: dispatch and kernel, where there are such."""
    return f"{variant.dispatch}-{variant.kernel}" if variant else "reference"


every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=called)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Drawn:
    """Tokens with gates, which of them are real, and how many experts each gets."""

    gates: list[list[float]]
    mask: list[bool] | None
    top_k: int

    @property
    def num_tokens(self) -> int:
        return len(self.gates)

    @property
    def num_experts(self) -> int:
        return len(self.gates[0])

    @property
    def real(self) -> list[bool]:
        return [True] * self.num_tokens if self.mask is None else self.mask

    @cached_property
    def experts(self) -> list[list[int]]:
        return plain.choices(self.gates, self.top_k)

    @cached_property
    def probs(self) -> list[list[float]]:
        return [[gates[expert] for expert in mine] for gates, mine in zip(self.gates, self.experts, strict=True)]

    @property
    def num_real(self) -> int:
        return sum(self.real)

    @cached_property
    def loads(self) -> list[int]:
        """Choices of every expert, padding left out."""
        return [sum(len(self.wants(choice, expert)) for choice in range(self.top_k)) for expert in range(self.num_experts)]

    def wants(self, choice: int, expert: int) -> list[int]:
        """Tokens whose choice of that rank is the expert, in order."""
        return [token for token in range(self.num_tokens) if self.real[token] and self.experts[token][choice] == expert]

    def gated(self, slots: int) -> plain.Gated:
        """What fairseq makes of it."""
        return plain.gated(self.experts, self.probs, self.real, self.num_experts, slots)

    @property
    def dropless(self) -> plain.Gated:
        """Room for everybody."""
        return self.gated(self.num_tokens * self.top_k)

    @property
    def step(self) -> Step:
        return Step(real_T=None if self.mask is None else torch.tensor(self.mask))

    def step_on(self, device: str) -> Step:
        """The step with its tensor on a device."""
        return replace(self.step, real_T=None if self.mask is None else torch.tensor(self.mask, device=device))

    @property
    def routing(self) -> Routing:
        """The same as the package's tensors."""
        return self.routing_on("cpu")

    def routing_on(self, device: str) -> Routing:
        """The routing with its tensors on a device."""
        experts_TK, probs_TK = (torch.tensor(rows, device=device) for rows in (self.experts, self.probs))
        return Routing(experts_TK, probs_TK, self.step_on(device).real_T, self.num_experts)


@st.composite
def drawn(draw: st.DrawFn, *, max_tokens: int = 12, max_experts: int = 6) -> Drawn:
    """Any shape with E and k from 1, ties, and with or without padding (even nothing else)."""
    num_tokens, num_experts = draw(st.integers(1, max_tokens)), draw(st.integers(1, max_experts))
    gates = st.lists(st.sampled_from(GATES), min_size=num_experts, max_size=num_experts)
    return Drawn(
        gates=draw(st.lists(gates, min_size=num_tokens, max_size=num_tokens)),
        mask=draw(st.none() | st.lists(st.booleans(), min_size=num_tokens, max_size=num_tokens)),
        top_k=draw(st.integers(1, min(4, num_experts))),
    )


def wanting(experts: list[list[int]], num_experts: int, mask: list[bool] | None = None) -> Drawn:
    """Tokens that choose exactly these experts, each half as likely as the one before."""
    gates = [[0.0] * num_experts for _ in experts]
    for row, mine in zip(gates, experts, strict=True):
        for rank, expert in enumerate(mine):
            row[expert] = 0.5 ** (rank + 1)
    return Drawn(gates, mask, len(experts[0]))


def fractions() -> st.SearchStrategy[float]:
    """Capacity fractions in (0, 1] with two decimals, the small ones more often."""
    return st.integers(1, 30).map(lambda percent: percent / 100) | st.integers(1, 100).map(lambda percent: percent / 100)


def make_recipe(
    *,
    experts: int,
    top_k: int = 2,
    capacity_fraction: float = 1.0,
    dim: int = 4,
    ffn_dim: int = 8,
    activation: str = "relu",
    masking: float = 0.0,
    source: str = "model",
    **ffn: Any,
) -> Recipe:
    """One MoE layer, and nothing around it that matters."""
    model = {
        "decoder_layers": 1,
        "dim": dim,
        "ffn_dim": ffn_dim,
        "heads": 1,
        "vocab_size": 260,
        "experts": experts,
        "moe_every": 1,
        "activation": activation,
        "expert_output_masking": masking,
        "tokenizer": "bytes",
        **ffn,
    }
    document = {
        "workload": "lm",
        "model": model,
        "gating": {"top_k": top_k, "capacity_fraction": capacity_fraction},
        "load": {"batch_size": 1, "sequence_length": 32},
        "routing": {"source": source},
    }
    return Recipe.model_validate(document)


def forced_layer(case: Drawn, capacity_fraction: float = 1.0, **shape: Any) -> MoELayer:
    """A layer of the case's shape that decides as the case says."""
    layer = make_layer(make_recipe(experts=case.num_experts, top_k=case.top_k, capacity_fraction=capacity_fraction, **shape))
    layer.router.forced = decided(case)
    return layer


def make_layer(recipe: Recipe, seed: int = 0) -> MoELayer:
    """The layer with normal weights, biases too."""
    layer = MoELayer("0", recipe).requires_grad_(False)
    random = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random))
    return layer


def tokens(num_tokens: int, dim: int, seed: int = 1) -> Tensor:
    """Normal inputs (T, D)."""
    return torch.randn(num_tokens, dim, generator=torch.Generator().manual_seed(seed))


def under(layer: MoELayer, x_TD: Tensor, step: Step, variant: Variant | None) -> Tensor:
    """The layer's output, executed as `variant` says; None is the dropless reference."""
    use_variant(layer, variant)
    y_TD: Tensor = layer(x_TD, step)
    return y_TD


def parameters_of(layer: MoELayer) -> dict[str, plain.Array]:
    """The experts' tensors by name, as float64."""
    return {name: whole.cpu().double().numpy() for name, whole in layer.experts.weights.items()}


def rows_that_differ(one_TD: Tensor, other_TD: Tensor, tolerance: float = 1e-4) -> set[int]:
    """Tokens whose outputs are further apart than rounding explains."""
    return set(np.flatnonzero((one_TD - other_TD).abs().amax(dim=1).cpu().numpy() > tolerance).tolist())


@dataclass
class Decided:
    """The same decisions in every layer and step."""

    experts_TK: Tensor
    probs_TK: Tensor | None = None

    def decide(self, layer: str, step: Step, device: torch.device) -> tuple[Tensor, Tensor | None]:
        return self.experts_TK.to(device), None if self.probs_TK is None else self.probs_TK.to(device)


def decided(case: Drawn) -> Decided:
    """Injects what was drawn."""
    return Decided(case.routing.experts_TK, case.routing.probs_TK)


@dataclass
class WaveStore:
    """Hands out the experts in waves of these sizes; what was handed out before is overwritten, as a small buffer would."""

    weights: ExpertWeights
    sizes: list[int]

    def expect(self, offsets: Offsets) -> None:
        """All are there."""

    def waves(self) -> Iterator[Wave]:
        first = 0
        for size in self.sizes:
            buffer = self.weights.map(lambda whole, part=slice(first, first + size): whole[part].clone())
            yield Wave(range(first, first + size), buffer)
            for view in buffer.values():
                view.fill_(torch.nan)
            first += size
        assert first == self.weights.num_experts
