"""Small experts with known weights, and every tier that they can lie in."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from moeprof.policies.eviction.registry import make_eviction
from moeprof.store.backing import BackingFile, Contents, backing
from moeprof.store.buffered import BufferedStore
from moeprof.store.ledger import Ledger
from moeprof.store.record import RecordLayout
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import HostTier, Tier

DIM, FFN_DIM = 8, 12
LAYOUT = RecordLayout(DIM, FFN_DIM, torch.float32)
LAYERS = ["1", "3"]


def weights_of(layer: str, num_experts: int) -> ExpertWeights:
    """Random weights that depend on the layer's name only."""
    generator = torch.Generator().manual_seed(int(layer))
    shapes = LAYOUT.shapes
    drawn = {name: torch.randn(num_experts, *shape, generator=generator) for name, shape in shapes.items()}
    return ExpertWeights(drawn["w1"], drawn["b1"], drawn["w2"], drawn["b2"])


def filling(num_experts: int) -> Callable[[str, int, ExpertWeights], None]:
    """Writes an expert of `weights_of` into views."""
    whole = {layer: weights_of(layer, num_experts) for layer in LAYERS}

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        for view, weights in zip(into, whole[layer], strict=True):
            view.copy_(weights[expert])

    return fill


def contents(num_experts: int, weights_hash: str = "a hash") -> Contents:
    """Of a file with two layers."""
    return Contents(
        weights_hash=weights_hash, dim=DIM, ffn_dim=FFN_DIM, dtype="float32", num_experts=num_experts, layers=LAYERS
    )


def on_disk(num_experts: int) -> BackingFile:
    """The file, in the folder that tests use in place of the user's own."""
    return backing(contents(num_experts), filling(num_experts))


def in_memory(num_experts: int) -> HostTier:
    """All records beside the device."""
    keys = [(layer, expert) for layer in LAYERS for expert in range(num_experts)]
    return HostTier.filled(LAYOUT, keys, filling(num_experts), pinned=False)


@dataclass
class Watched:
    """A tier that keeps what was read, and may dawdle."""

    behind: Tier
    read_keys: list[tuple[str, int]] = field(default_factory=list)
    dawdle: Callable[[], object] = lambda: None

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        self.read_keys.append((layer, expert))
        self.dawdle()
        self.behind.read(layer, expert, into_B)


def store(
    tier: Tier, num_experts: int, slots: int, policy: str = "inactive-first+lifo", layer: str = "1", held: Sequence[int] = ()
) -> BufferedStore:
    """Of one layer, with a ledger of its own."""
    return BufferedStore(layer, held or range(num_experts), slots, make_eviction(policy), LAYOUT, Ledger(tier))


def steps(seed: int, num_experts: int, count: int) -> list[list[int]]:
    """Rows of every expert, step by step: some experts have none, sometimes all of them."""
    draw = random.Random(seed)
    return [[draw.choice([0, 0, 1, 2, 5]) for _ in range(num_experts)] for _ in range(count)]


def half_written(path: Path) -> Path:
    """Where a file lies that is not whole yet."""
    return path.with_name(path.name + ".partial")
