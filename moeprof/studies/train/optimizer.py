"""The optimizers with linear warm-up and a cosine schedule, and their state as plain tensors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moeprof.records.recipe.recipe import TrainSection
from moeprof.studies.train.learner import Learner
from moeprof.studies.train.muon import Muon

Optimizers = Sequence[torch.optim.Optimizer]

MOMENTS = ("exp_avg", "exp_avg_sq", "momentum")
BETAS = (0.9, 0.98)
MUON_RATE = 10
"""The learning rate of Muon as a multiple of AdamW's."""


def make_optimizers(learner: Learner, train: TrainSection) -> Optimizers:
    """The optimizers that the recipe names, which share the parameters; weight decay is for matrices only."""
    matrices = [parameter for parameter in learner.model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in learner.model.parameters() if parameter.dim() == 1]
    by_muon = inner_matrices(learner) if train.optimizer == "muon" else []
    others = [matrix for matrix in matrices if all(matrix is not other for other in by_muon)]
    groups = [{"params": others, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=train.learning_rate, betas=BETAS, fused=True)
    return [adamw, Muon(by_muon, train.learning_rate, train.weight_decay)] if by_muon else [adamw]


def inner_matrices(learner: Learner) -> list[Tensor]:
    """The matrices of attention, FFNs and experts: neither embeddings, which may be shared with the output, nor routers."""
    modules = list(learner.model.modules())
    embeddings = {module.weight for module in modules if isinstance(module, nn.Embedding)}
    linear = [module.weight for module in modules if isinstance(module, nn.Linear) and module.weight not in embeddings]
    return linear + learner.expert_parameters()


def learning_rate(train: TrainSection, number: int) -> float:
    """Learning rate of update `number`, counted from 0."""
    if number < train.warmup_steps:
        return train.learning_rate * (number + 1) / train.warmup_steps
    progress = (number - train.warmup_steps) / max(train.steps - train.warmup_steps, 1)
    share = train.final_learning_rate + (1 - train.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
    return train.learning_rate * share


def set_learning_rate(optimizers: Optimizers, rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * (MUON_RATE if isinstance(optimizer, Muon) else 1)


def moments(model: nn.Module, optimizers: Optimizers) -> dict[str, Tensor]:
    """The moments of every parameter, named `exp_avg/embedding.weight` and so on; empty before the first update."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for optimizer in optimizers
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
        if moment in optimizer.state[parameter]
    }


def restore_moments(model: nn.Module, optimizers: Optimizers, tensors: dict[str, Tensor], num_updates: int) -> None:
    """Restores the state of the optimizers from `moments`."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter in [parameter for group in optimizer.param_groups for parameter in group["params"]]:
            found = {moment: tensors.get(f"{moment}/{names[parameter]}") for moment in MOMENTS}
            state = {moment: tensor.clone() for moment, tensor in found.items() if tensor is not None}
            if state:
                optimizer.state[parameter] = {"step": torch.tensor(float(num_updates))} | state
