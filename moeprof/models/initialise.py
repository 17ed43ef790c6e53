"""Seeded random weights, the same bits on every machine: raw Philox integers, scaled by one exact operation."""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor, nn

CHUNK = 2**22


def initialise(model: nn.Module, seed: int) -> None:
    """Fills every parameter from `seed` and its name: norms 1, biases 0, the rest uniform.

    Matrices have the variance of Glorot and Bengio 2010, 2 / (fan in + fan out), the embedding 1 / D as in fairseq. A
    parameter's values do not depend on the other parameters, so the dense twin shares what it has in common.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rsplit(".", 1)[-1] in {"bias", "b1", "b2"}:
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                fill_uniform(parameter, math.sqrt(3 * variance(name, parameter)), f"{seed}/{name}")


def variance(name: str, parameter: Tensor) -> float:
    """Of the uniform distribution."""
    if name == "embedding.weight":
        return 1 / parameter.shape[1]
    return 2 / (parameter.shape[-1] + parameter.shape[-2])


def fill_uniform(parameter: Tensor, bound: float, key: str) -> None:
    """Values in [-bound, bound) from the stream that `key` names."""
    stream = np.random.Philox(key=int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
    flat = parameter.view(-1)
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        raw = stream.random_raw((part.numel() + 1) // 2).view(np.int32)[: part.numel()]
        part.copy_(torch.from_numpy(raw.astype(np.float32) * np.float32(bound * 2.0**-31)))
