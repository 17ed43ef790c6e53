"""The far side computes what the near side would, in a process of its own that may be killed."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from moeprof.moe.experts import ExpertRows, make_ffn, run_experts
from moeprof.moe.far_side import FarFFN, FarSide
from moeprof.moe.kernels.loop import loop
from moeprof.records.errors import MoeprofError
from moeprof.records.ffn.mlp import MLP
from moeprof.store.resident import ResidentStore
from tests.store.shelves import DIM, LAYERS, LAYOUT, in_memory, weights_of

EXPERTS = 4


@pytest.fixture(scope="module")
def far() -> Iterator[FarSide]:
    side = started()
    yield side
    side.close()


def started() -> FarSide:
    return FarSide(dict.fromkeys(LAYERS, LAYOUT), dict.fromkeys(LAYERS, EXPERTS), in_memory(EXPERTS), FarFFN("mlp", "gelu"))


def rows_of(lengths: list[int]) -> ExpertRows:
    bounds = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    return ExpertRows(torch.randn(bounds[-1], DIM, generator=torch.Generator().manual_seed(1)), bounds)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("experts", "lengths"), [([0, 1, 2, 3], [1, 2, 3, 4]), ([2], [5]), ([3, 0], [1, 1])])
def test_outputs_are_those_of_the_same_experts_here(far: FarSide, layer: str, experts: list[int], lengths: list[int]) -> None:
    rows = rows_of(lengths)
    far.begin(layer, experts, rows.rows_RD, lengths)
    found = far.outputs()
    weights = weights_of(layer, EXPERTS).map(lambda whole: whole[experts])
    expected = run_experts(loop, rows, ResidentStore(weights), make_ffn(MLP, "gelu"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_are_computed_while_this_process_does_something_else(far: FarSide) -> None:
    rows = rows_of([64])
    far.begin(LAYERS[0], [1], rows.rows_RD, [64])
    assert far.near.poll(20)  # the answer is there before anybody asks for it
    assert far.outputs().shape == rows.rows_RD.shape


def test_the_process_has_one_core_of_its_own(far: FarSide) -> None:
    assert far.process.pid is not None
    assert os.sched_getaffinity(far.process.pid) == {max(os.sched_getaffinity(0))}


def test_a_killed_process_is_an_error_with_a_remedy_and_not_a_hang() -> None:
    side = started()
    assert side.process.pid is not None
    os.kill(side.process.pid, signal.SIGKILL)
    side.process.join(20)

    def use() -> None:
        side.begin(LAYERS[0], [0], rows_of([1]).rows_RD, [1])
        side.outputs()

    with pytest.raises(MoeprofError) as failed:
        use()
    assert failed.value.what == "the process that computes cold experts ended by signal 9"
    assert failed.value.remedy.endswith(".")
    side.close()


def test_a_closed_side_leaves_no_process() -> None:
    side = started()
    side.close()
    assert side.process.exitcode is not None
