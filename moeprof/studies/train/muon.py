"""Muon (Jordan and others, 2024): every update of a matrix is its momentum with all singular values near 1.

N matrices, R rows, C columns.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial a x + b x^3 + c x^5 that moves singular values towards 1; those of the authors."""

ITERATIONS = 4
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Updates matrices, and stacks of matrices such as those of experts, one matrix at a time."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(list(matrices), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, group["lr"], group["weight_decay"])

    def update(self, parameter: Tensor, rate: float, weight_decay: float) -> None:
        """One update of a matrix or a stack of matrices."""
        assert parameter.grad is not None
        state = self.state[parameter]
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.mul_(MOMENTUM).add_(parameter.grad)
        direction_NRC = orthogonalized((parameter.grad + MOMENTUM * momentum).reshape(-1, *parameter.shape[-2:]))
        longer = max(1.0, parameter.shape[-2] / parameter.shape[-1])
        parameter.mul_(1 - rate * weight_decay).sub_(direction_NRC.reshape(parameter.shape), alpha=rate * math.sqrt(longer))


def orthogonalized(matrices_NRC: Tensor) -> Tensor:
    """The matrices with singular values near 1 and the same singular vectors, by Newton-Schulz iterations."""
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.transpose(1, 2) if tall else matrices_NRC
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(fast_dtype())
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).float()


def fast_dtype() -> torch.dtype:
    """The type of the iterations, which need little precision: bfloat16 where the processor multiplies such matrices."""
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else torch.float32
