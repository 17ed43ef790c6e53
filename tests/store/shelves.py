"""Small experts with known weights, every tier that they can lie in, and processes that come to grief with them."""

import multiprocessing
import os
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.errors import MoeprofError
from moeprof.records.ffn.mlp import MLP
from moeprof.store.backing import RAM, BackingFile, Contents, LayerContents, backing, file_system
from moeprof.store.buffered import BufferedStore
from moeprof.store.entry import EntryLayout
from moeprof.store.ledger import Ledger, Load
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import HostTier, Tier, TierName

DIM, FFN_DIM = 8, 12
LAYOUT = EntryLayout(MLP.shapes(DIM, FFN_DIM, bias=True), torch.float32)
LAYERS = ["1", "3"]
ENTRY_BYTES = 4096
"""Of 848 bytes of weights: 2 x 8 x 12 + 8 + 12 numbers of 4 bytes."""


def weights_of(layer: str, num_experts: int, device: str = "cpu") -> ExpertWeights:
    """Random weights that depend on the layer's name only."""
    generator = torch.Generator().manual_seed(int(layer))
    shapes = LAYOUT.shapes
    drawn = {name: torch.randn(num_experts, *shape, generator=generator) for name, shape in shapes.items()}
    return ExpertWeights((name, drawn[name].to(device)) for name in LAYOUT.tensors)


def filling(num_experts: int) -> Callable[[str, int, ExpertWeights], None]:
    """Writes an expert of `weights_of` into views."""
    whole = {layer: weights_of(layer, num_experts) for layer in LAYERS}

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        for name, view in into.items():
            view.copy_(whole[layer][name][expert])

    return fill


def entry_of(layer: str, expert: int, num_experts: int) -> bytes:
    """The bytes of an expert's entry: both matrices, both biases, zeros."""
    one = weights_of(layer, num_experts).map(lambda whole: whole[expert])
    return b"".join(one[name].numpy().tobytes() for name in ("w1", "w2", "b1", "b2")).ljust(ENTRY_BYTES, b"\0")


def read_from(tier: Tier, layer: str, expert: int) -> bytes:
    """What a tier says that an expert's entry is."""
    slab_1B = LAYOUT.slab(1, "cpu").fill_(255)
    tier.read(layer, expert, slab_1B[0])
    return slab_1B.numpy().tobytes()


def contents(num_experts: int, weights_hash: str = "a hash") -> Contents:
    """Of a file with two layers."""
    layer = LayerContents.of(LAYOUT, num_experts)
    return Contents(weights_hash=weights_hash, layers=dict.fromkeys(LAYERS, layer))


def on_disk(num_experts: int) -> BackingFile:
    """The file, in the folder that tests use in place of the user's own."""
    return backing(contents(num_experts), filling(num_experts))


def in_memory(num_experts: int, device: str = "cpu") -> HostTier:
    """All entries beside the device."""
    keys = [(layer, expert) for layer in LAYERS for expert in range(num_experts)]
    return HostTier.filled(LAYOUT, keys, filling(num_experts), pinned=device == "cuda")


@dataclass
class Watched:
    """A tier that keeps what was read, and may dawdle."""

    behind: Tier
    read_keys: list[tuple[str, int]] = field(default_factory=list)
    dawdle: Callable[[], object] = lambda: None

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        self.read_keys.append((layer, expert))
        self.dawdle()
        return self.behind.read(layer, expert, into_B)


@dataclass
class Failing:
    """A tier that breaks down in its n-th reads, from 0, in the middle of the entry."""

    behind: Tier
    breakdowns: Iterable[int] = ()
    error: BaseException = field(default_factory=lambda: OSError(5, os.strerror(5)))
    reads: int = 0

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        self.reads += 1
        if self.reads - 1 in self.breakdowns:
            into_B[: len(into_B) // 2] = 255
            raise self.error
        return self.behind.read(layer, expert, into_B)


class Large:
    """A tier that is nearly always in the middle of a copy."""

    from_B, into_B = torch.zeros(2, 2**24, dtype=torch.uint8)

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        self.into_B.copy_(self.from_B)
        return "host"


def endless(ledger: Ledger) -> None:
    """More loads than anybody waits for, into the same place."""
    place_B = LAYOUT.slab(1, "cpu")[0]
    for number in range(20_000):
        ledger.submit(Load(LAYERS[0], number % 4, place_B))


def store(
    tier: Tier,
    num_experts: int,
    slots: int,
    policy: str = "inactive-first+lifo",
    layer: str = "1",
    held: Sequence[int] = (),
    device: str = "cpu",
) -> BufferedStore:
    """Of one layer, with a ledger of its own."""
    return BufferedStore(layer, held or range(num_experts), slots, make_eviction(policy), LAYOUT, Ledger(tier, device))


def steps(seed: int, num_experts: int, count: int) -> list[list[int]]:
    """Rows of every expert, step by step: some experts have none, sometimes all of them."""
    draw = random.Random(seed)
    return [[draw.choice([0, 0, 1, 2, 5]) for _ in range(num_experts)] for _ in range(count)]


def half_written(path: Path) -> Path:
    """Where a file lies that is not whole yet."""
    return path.with_name(path.name + ".partial")


def own_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has expert files kept in the folder; the test is skipped where that is memory."""
    if (kind := file_system(folder)) in RAM:
        pytest.skip(f"{folder} is {kind}: give --basetemp a folder on a disk")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def bytes_read(thread: int | None = None) -> int:
    """What the disk was read for a thread so far, by the kernel's account; other threads' page faults stay out of it."""
    account = Path(f"/proc/self/task/{thread or threading.get_native_id()}/io").read_text()
    return int(account.split("\nread_bytes: ")[1].split()[0])


def two_lines(error: MoeprofError) -> bool:
    """Whether an error is one line of what and where, and one of remedy, both of them sentences one can read."""
    lines = str(error).splitlines()
    return lines == [error.what, error.remedy] and all(map(str.strip, lines)) and error.remedy.endswith(".")


CHILDREN = multiprocessing.get_context("forkserver")
"""Processes that begin with what takes long imported."""
CHILDREN.set_forkserver_preload(["pytest", "hypothesis.strategies", "moeprof.store.backing", "moeprof.store.buffered"])
