"""The training objective: cross-entropy, the load-balancing loss and the router's z-loss.

T tokens, E experts, K choices, D width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moeprof.instrument.hooks import hooked
from moeprof.models.build import Model
from moeprof.moe.layer import MoELayer, moe_layers
from moeprof.moe.router import Router
from moeprof.moe.routing import Routing
from moeprof.records.recipe.recipe import TrainSection
from moeprof.studies.train.lessons import Lesson


@dataclass(frozen=True)
class Losses:
    """Losses of one lesson; auxiliary losses are summed over MoE layers, and 0 in a dense model."""

    cross_entropy: Tensor
    balance: Tensor
    z: Tensor

    def total(self, train: TrainSection) -> Tensor:
        """The weighted sum that training minimises."""
        return self.cross_entropy + train.balance_weight * self.balance + train.z_weight * self.z


@dataclass(eq=False)
class RouterLosses:
    """Collects the auxiliary losses by hooks on the routers while the model runs."""

    balance: list[Tensor] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)

    def hook(self, router: Router, inputs: tuple[Tensor, Any], routing: Routing) -> None:
        """The hook, called after every router."""
        logits_TE = inputs[0].float() @ router.weight.t()
        experts_TK = routing.experts_TK
        if routing.real_T is not None:
            logits_TE, experts_TK = logits_TE[routing.real_T], experts_TK[routing.real_T]
        self.balance.append(balance_loss(logits_TE, experts_TK))
        self.z.append(z_loss(logits_TE))


def balance_loss(logits_TE: Tensor, experts_TK: Tensor) -> Tensor:
    """E x sum over experts of (share of choices) x (mean softmax value); 1 if both are uniform (Switch, GShard)."""
    num_experts = logits_TE.shape[1]
    share_E = torch.bincount(experts_TK.flatten(), minlength=num_experts) / experts_TK.numel()
    return num_experts * (share_E * torch.softmax(logits_TE, dim=1).mean(dim=0)).sum()


def z_loss(logits_TE: Tensor) -> Tensor:
    """Mean over tokens of logsumexp(logits)^2, which keeps logits small (ST-MoE)."""
    return torch.logsumexp(logits_TE, dim=1).square().mean()


def losses_of(model: Model, lesson: Lesson, dropout: torch.Generator | None = None) -> Losses:
    """All three losses; `dropout` turns on expert output masking, if the recipe has it."""
    routers = RouterLosses()
    with hooked([layer.router for layer in moe_layers(model)], routers.hook), masked_outputs(model, dropout):
        cross_entropy = cross_entropy_of(lesson.logits(model), lesson.targets_BL)
    nothing = cross_entropy.new_zeros(())
    return Losses(cross_entropy, sum(routers.balance, nothing), sum(routers.z, nothing))


def cross_entropy_of(logits_BLV: Tensor, targets_BL: Tensor) -> Tensor:
    """Nats per predicted token; positions without a next token are omitted."""
    return F.cross_entropy(logits_BLV.flatten(0, 1).float(), targets_BL.flatten())


@contextmanager
def masked_outputs(model: Model, dropout: torch.Generator | None) -> Iterator[None]:
    """Expert output masking as in NLLB: an MoE layer adds nothing for some tokens, and its full output for the others.

    The layer scales by the share kept, as in inference, so kept outputs are divided by it.
    """

    def mask(layer: MoELayer, inputs: object, y_TD: Tensor) -> Tensor:
        kept_T1 = torch.rand(len(y_TD), 1, generator=dropout) < layer.scale
        return y_TD * (kept_T1 / layer.scale)

    masked = [layer for layer in moe_layers(model) if dropout is not None and layer.scale < 1]
    with hooked(masked, mask):
        yield
