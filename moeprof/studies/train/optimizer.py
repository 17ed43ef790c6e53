"""AdamW with linear warm-up and a cosine schedule, and its state as plain tensors."""

import math

import torch
from torch import Tensor

from moeprof.models.build import Model
from moeprof.records.recipe.recipe import TrainSection

MOMENTS = ("exp_avg", "exp_avg_sq")
BETAS = (0.9, 0.98)


def make_optimizer(model: Model, train: TrainSection) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=BETAS, fused=True)


def learning_rate(train: TrainSection, number: int) -> float:
    """Learning rate of update `number`, counted from 0."""
    if number < train.warmup_steps:
        return train.learning_rate * (number + 1) / train.warmup_steps
    progress = (number - train.warmup_steps) / max(train.steps - train.warmup_steps, 1)
    share = train.final_learning_rate + (1 - train.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
    return train.learning_rate * share


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def moments(model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Both moments of every parameter, named `exp_avg/embedding.weight` and so on; empty before the first update."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def restore_moments(model: Model, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], num_updates: int) -> None:
    """Restores the optimizer's state from `moments`."""
    for name, parameter in model.named_parameters():
        if f"{MOMENTS[0]}/{name}" in tensors:
            state = {moment: tensors[f"{moment}/{name}"].clone() for moment in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(num_updates))} | state
