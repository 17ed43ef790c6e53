"""The training objective: cross-entropy, the load-balancing loss and the router's z-loss.

T tokens, E experts, K choices.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from moeprof.moe.routing import Routing
from moeprof.records.recipe.recipe import TrainSection
from moeprof.studies.train.learner import Learner
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
    """Collects the auxiliary losses at the routers while the model runs."""

    balance: list[Tensor] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)

    def look(self, layer: str, logits_TE: Tensor, routing: Routing) -> None:
        """Called after every router."""
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


def losses_of(learner: Learner, lesson: Lesson, dropout: torch.Generator | None = None) -> Losses:
    """All three losses; `dropout` turns on expert output masking, if the model has it."""
    routers = RouterLosses()
    with learner.at_routers(routers.look):
        cross_entropy = cross_entropy_of(learner.logits(lesson, dropout), lesson.targets_BL)
    nothing = cross_entropy.new_zeros(())
    return Losses(cross_entropy, sum(routers.balance, nothing), sum(routers.z, nothing))


def cross_entropy_of(logits_BLV: Tensor, targets_BL: Tensor) -> Tensor:
    """Nats per predicted token; positions without a next token are omitted."""
    return F.cross_entropy(logits_BLV.flatten(0, 1).float(), targets_BL.flatten())
