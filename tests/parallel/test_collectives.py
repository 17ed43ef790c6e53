"""What ranks say to each other over gloo, and what becomes of those whom nobody answers."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from models.shapes import small, words

from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step
from moeprof.models.build import build_model
from moeprof.moe.layer import use_variant
from moeprof.parallel.collectives import all_gather_json, anyone, barrier, gathered, largest, start_all_to_all, total
from moeprof.parallel.failure import LateRankError, LostRankError
from moeprof.parallel.group import ALONE, Group
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant

from .ranks import answers_of, over_ranks


def talk(group: Group) -> dict[str, object]:
    """Everything once, from numbers that differ by rank."""
    barrier(group)
    return {
        "largest": largest(group, [group.rank, -group.rank, 7]),
        "total": total(group, [1, group.rank]),
        "anyone": (anyone(group, group.rank == 1), anyone(group, False)),
        "all_gather_json": all_gather_json(group, {"rank": group.rank, "long": "x" * 100 * group.rank}),
        "gathered": gathered(group, b"ab" * group.rank),
    }


@pytest.mark.parametrize("size", [2, 3])
def test_all_ranks_learn_the_same(size: int) -> None:
    found = over_ranks(size, talk)
    for rank, one in enumerate(found):
        assert one["largest"] == [size - 1, 0, 7]
        assert one["total"] == [size, sum(range(size))]
        assert one["anyone"] == (True, False)
        assert one["all_gather_json"] == [{"rank": other, "long": "x" * 100 * other} for other in range(size)]
        assert one["gathered"] == ([b"ab" * other for other in range(size)] if rank == 0 else [])


def test_alone_a_rank_talks_to_itself_without_any_group() -> None:
    assert talk(ALONE) == {
        "largest": [0, 0, 7],
        "total": [1, 0],
        "anyone": (False, False),
        "all_gather_json": [{"rank": 0, "long": ""}],
        "gathered": [b""],
    }


def send(group: Group, dtype: torch.dtype) -> tuple[list[float], list[float]]:
    """Rank r sends 2 r + n rows of its own number to rank n, and none where both are 0; then as many to each."""
    sent = [2 * group.rank + other for other in range(group.size)]
    received = [2 * other + group.rank for other in range(group.size)]
    mine = torch.full((sum(sent), 3), float(group.rank)).to(dtype)
    varying = start_all_to_all(mine, sent, received).wait()
    equal = start_all_to_all(torch.arange(group.size * 2).add(10 * group.rank)).wait()
    return varying[:, 0].tolist(), equal.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_come_source_by_source_in_any_number(dtype: torch.dtype) -> None:
    found = over_ranks(2, send, dtype)
    assert found[0] == ([1.0, 1.0], [0, 1, 10, 11])
    assert found[1] == ([0.0, 1.0, 1.0, 1.0], [2, 3, 12, 13])


class Trap(Probe):
    """Calls `spring` in a region."""

    def __init__(self, name: str, spring: object) -> None:
        self.name, self.spring = name, spring

    @contextmanager
    def region(self, name: str, layer: str) -> Iterator[None]:
        if name == self.name:
            self.spring()  # type: ignore[operator]
        yield


def until_lost(group: Group, recipe: Recipe, region: str) -> tuple[str, float]:
    """Rank 1 kills itself in a region; what the others hear, and how long that takes, s."""
    model = build_model(recipe, group=group)
    use_variant(model, Variant("dynamic"))
    tokens_BL, started = words(2, 8), time.monotonic()
    spring = (lambda: os.kill(os.getpid(), signal.SIGKILL)) if group.rank == 1 else (lambda: None)
    try:
        with observed_by(Trap(region, spring)):
            model(tokens_BL, Step(None))
            model(tokens_BL, Step(None))
    except LostRankError as error:
        return error.what, time.monotonic() - started
    return "", 0.0


@pytest.mark.parametrize(
    "region", ["attention", "gate", "dispatch", "a2a_sizes", "a2a_dispatch", "experts", "a2a_combine", "combine"]
)
def test_a_rank_that_is_killed_in_any_region_is_missed_at_once(region: str) -> None:
    recipe = small("lm")
    recipe = recipe.model_copy(update={"parallel": recipe.parallel.model_copy(update={"ranks": 2})})
    (heard, failure), (_, death) = answers_of(2, until_lost, recipe, region)
    assert (failure, death) == ("", "a rank died")
    assert heard[0].startswith("another rank has ended (")
    assert heard[1] < 5


def wait_for_nobody(group: Group) -> str:
    """Rank 1 hangs."""
    if group.rank == 1:
        time.sleep(4)
        return ""
    try:
        barrier(group)
    except LateRankError as error:
        return f"{error.what}\n{error.remedy}"
    return ""


def test_a_rank_that_hangs_is_waited_for_only_so_long() -> None:
    heard, _ = answers_of(2, wait_for_nobody, timeout_s=2)
    assert heard[0].startswith("another rank did not answer in time (")
    assert "timeout_s" in heard[0]
