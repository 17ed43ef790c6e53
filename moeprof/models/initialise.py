"""Seeded random weights, the same bits on every machine: raw Philox integers, scaled by one exact operation."""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor, nn

from moeprof.models.shard import present
from moeprof.parallel.group import ALONE, Group
from moeprof.records.ffn.registry import bias_names

CHUNK = 2**22

VALUES_PER_BLOCK = 8
"""Values of 32 bits that one state of the Philox counter yields."""


def initialise(model: nn.Module, seed: int, group: Group = ALONE) -> None:
    """Fills every parameter from `seed` and its name: norms 1, biases 0, the rest uniform.

    Matrices have the variance of Glorot and Bengio 2010, 2 / (fan in + fan out), the embedding 1 / D as in fairseq. A
    parameter's values do not depend on the other parameters, so the dense twin has the same values in common parameters; nor on
    the number of ranks, each of which draws its own experts only.
    """
    with torch.no_grad():
        for part in present(model, group):
            draw(part.name, part.parameter, seed, part.first * part.parameter[0].numel())


def draw(name: str, parameter: Tensor, seed: int, first: int = 0) -> None:
    """Fills a parameter, or the part of it whose first value has index `first`."""
    if name.rpartition(".")[2] in bias_names():
        parameter.zero_()
    elif parameter.dim() == 1:
        parameter.fill_(1.0)
    else:
        bound = math.sqrt(3 * variance(name, parameter))
        fill_uniform(parameter, bound, f"{seed}/{name}", first)


def variance(name: str, parameter: Tensor) -> float:
    """Variance of the uniform distribution of a parameter's values."""
    if name == "embedding.weight":
        return 1 / parameter.shape[1]
    return 2 / (parameter.shape[-1] + parameter.shape[-2])


def fill_uniform(parameter: Tensor, bound: float, key: str, first: int = 0) -> None:
    """Fills with values in [-bound, bound) of the stream named `key`, from index `first` on."""
    stream = np.random.Philox(key=int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
    blocks, skipped = divmod(first, VALUES_PER_BLOCK)
    stream.advance(blocks)
    flat = parameter.view(-1)
    for start in range(-skipped, flat.numel(), CHUNK):
        part = flat[max(start, 0) : start + CHUNK]
        num_values = min(CHUNK, flat.numel() - start)
        raw = stream.random_raw((num_values + 1) // 2).view(np.int32)[max(-start, 0) : num_values]
        part.copy_(torch.from_numpy(raw.astype(np.float32) * np.float32(bound * 2.0**-31)))
