"""Miss counts against figures that others computed: block traces, and every routing of a real model's answer."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeprof.analysis.caching.miss_counts import Accesses, hits, misses, misses_in_bytes
from moeprof.records.arrays import Ints
from tests.analysis.caching.references import POLICIES

MIB, LAYERS, EXPERTS, PREFILL, DECODE = 2**20, 30, 128, 0, 1


def one_by_one(blocks: Ints) -> Accesses:
    """Every access a batch of its own."""
    return Accesses(blocks, np.arange(len(blocks)), np.zeros_like(blocks))


def counted(misses_of: Callable[[str, list[int]], Ints], reference: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """What the reference holds, as counted here."""
    sizes = [int(size) for size in reference]
    told = {theirs: misses_of(POLICIES[theirs], sizes).tolist() for theirs in next(iter(reference.values()))}
    return {str(size): {theirs: told[theirs][row] for theirs in told} for row, size in enumerate(sizes)}


@pytest.mark.parametrize("name", ["backf", "cs", "gli", "multi1", "loop"])
def test_block_traces_miss_as_often_as_in_another_simulator(name: str, shared_data: Path) -> None:
    reference = json.loads((shared_data / "reference/lirs_unit_misses.json").read_text())["traces"][name]
    with gzip.open(shared_data / f"cache/{name}.trace.gz", "rt") as file:
        accesses = one_by_one(np.array([int(line) for line in file if line.strip().isdigit()], np.int64))
    assert (len(accesses), len(set(accesses.blocks_N.tolist()))) == (reference["requests"], reference["distinct"])
    assert counted(lambda policy, sizes: misses(accesses, policy, sizes)[:, 0], reference["misses"]) == reference["misses"]


@pytest.fixture
def gemma(shared_data: Path) -> list[dict[str, Any]]:
    """Every routing of the prompt and of its answer, in order."""
    with (shared_data / "traces/gemma.route.csv").open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [{key: int(row[key]) for key in ("phase", "step", "layer", "expert")} for row in rows]


def test_a_cache_per_layer_misses_on_gemma_as_often_as_in_another_simulator(
    gemma: list[dict[str, int]], shared_data: Path
) -> None:
    reference = json.loads((shared_data / "reference/perlayer_decode_misses.json").read_text())["traces"]["gemma"]
    layers = [
        one_by_one(np.array([row["expert"] for row in gemma if row["phase"] == DECODE and row["layer"] == layer], np.int64))
        for layer in range(LAYERS)
    ]
    assert sum(map(len, layers)) == reference["accesses"]
    sums = counted(lambda policy, sizes: sum(misses(layer, policy, sizes)[:, 0] for layer in layers), reference["misses"])
    assert sums == reference["misses"]


def global_accesses(rows: list[dict[str, int]]) -> Accesses:
    """One cache for all layers: a batch is a layer's step, and in prefill a layer's whole prompt, by the last use of an expert."""
    batches: dict[tuple[int, int, int], dict[int, None]] = {}
    for row in sorted(rows, key=lambda row: (row["phase"], row["step"] * row["phase"], row["layer"])):
        key = row["phase"], row["step"] * row["phase"], row["layer"]
        block = row["layer"] * EXPERTS + row["expert"]
        batches.setdefault(key, {}).pop(block, None)
        batches[key][block] = None
    sizes = [len(blocks) for blocks in batches.values()]
    blocks = np.array([block for blocks in batches.values() for block in blocks], np.int64)
    return Accesses(blocks, np.repeat(np.arange(len(sizes)), sizes), np.repeat([phase for phase, _, _ in batches], sizes))


def block_bytes(shared_data: Path) -> Ints:
    """What every expert of every layer takes, by the preamble."""
    with (shared_data / "traces/gemma.route.csv").open() as file:
        return np.repeat(
            [int(line.split("expert_bytes=")[1].split()[0]) for line in file if line.startswith("# layer=")], EXPERTS
        )


@pytest.mark.parametrize(("published", "policy"), [("belady", "min"), ("lru", "lru"), ("lfu", "lfu")])
def test_hit_rates_of_gemma_are_those_that_were_published(
    published: str, policy: str, gemma: list[dict[str, int]], shared_data: Path
) -> None:
    accesses = global_accesses(gemma)
    with (shared_data / "traces/gemma-curve.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["policy"] == published]
    budgets = [int(row["budget_mib"]) * MIB for row in rows]
    total_G = accesses.count(np.ones(len(accesses), bool))
    missed_CG = misses_in_bytes(accesses, policy, budgets, block_bytes(shared_data), "batch")
    cumulative, decode = 1 - missed_CG.sum(axis=1) / total_G.sum(), 1 - missed_CG[:, DECODE] / total_G[DECODE]
    assert len(rows) == 11
    assert [f"{100 * rate:.3f}" for rate in cumulative] == [row["hit_pct_cum"] for row in rows]
    assert [f"{100 * rate:.3f}" for rate in decode] == [row["hit_pct_decode"] for row in rows]


def test_lfu_hits_more_on_gemma_where_accesses_are_strictly_sequential(gemma: list[dict[str, int]], shared_data: Path) -> None:
    found_N = hits(global_accesses(gemma), "lfu", 250 * MIB, "sequential", block_bytes(shared_data))
    assert f"{100 * found_N.mean():.3f}" == "18.215"


def test_lru_hits_as_often_as_the_device_did_after_every_token(gemma: list[dict[str, int]], shared_data: Path) -> None:
    with (shared_data / "traces/gemma.metrics").open() as file:
        told = [float(row["cache_hit_pct"]) for row in csv.DictReader(line for line in file if not line.startswith("#"))]
    accesses = global_accesses(gemma)
    found_N = hits(accesses, "lru", 4000 * MIB, "batch", block_bytes(shared_data))
    per_token = Counter(accesses.batches_N.tolist())
    ends = np.cumsum([per_token[batch] for batch in sorted(per_token)])[2 * LAYERS - 1 :: LAYERS]  # after prefill and a token
    assert len(told) == len(ends) == 128
    assert 100 * np.cumsum(found_N)[ends - 1] / ends == pytest.approx(told, abs=0.1)
