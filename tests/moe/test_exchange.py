"""Real ranks exchange rows: the bytes they send, and outputs equal to those of a single rank."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from parallel.ranks import over_ranks
from torch import Tensor

from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step
from moeprof.models.initialise import initialise
from moeprof.moe.exchange import AllToAll, expert_order
from moeprof.moe.layer import MoELayer, connect
from moeprof.parallel.group import ALONE, Group
from moeprof.records.recipe.dispatch import DISPATCHES
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant

DIM, LM_EXPERTS, LM_CAPACITY = 4, 512, 0.05
INT64_BYTES, FLOAT32_BYTES = 8, 4


class CollectiveRecorder(Probe):
    """Every collective's region, bytes and times."""

    def __init__(self) -> None:
        self.bytes: list[tuple[str, list[int]]] = []
        self.times: list[tuple[int, int, int]] = []

    def exchanged(self, region: str, layer: str, to_bytes: Sequence[int], start_ns: int, wait_ns: int, end_ns: int) -> None:
        assert layer == "3"
        self.bytes.append((region, list(to_bytes)))
        self.times.append((start_ns, wait_ns, end_ns))


def recipe_of(group: Group, experts: int, capacity_fraction: float) -> Recipe:
    model = {"decoder_layers": 4, "dim": DIM, "ffn_dim": 8, "heads": 1, "vocab_size": 260, "experts": experts, "moe_every": 4}
    document = {
        "workload": "lm",
        "model": model | {"activation": "gelu", "tokenizer": "bytes"},
        "gating": {"capacity_fraction": capacity_fraction},
        "load": {"batch_size": 1, "sequence_length": 16},
        "parallel": {"ranks": group.size},
    }
    return Recipe.model_validate(document)


def layer_of(group: Group, experts: int, capacity_fraction: float) -> MoELayer:
    layer = MoELayer("3", recipe_of(group, experts, capacity_fraction)).requires_grad_(False)
    initialise(layer, 0, group)
    connect(layer, group)
    return layer


def local_tokens(rank: int, num_tokens: int) -> Tensor:
    return torch.randn(num_tokens, DIM, generator=torch.Generator().manual_seed(rank))


def local_step(rank: int, num_tokens: int) -> Step:
    """Rank 0 has no padding, rank 1 nothing else, the others some."""
    real_T = torch.arange(num_tokens) % 3 != 0
    return Step(None) if rank == 0 else Step(torch.zeros_like(real_T) if rank == 1 else real_T)


def run_local(group: Group, rank: int, dispatch: str, experts: int, fraction: float, num_tokens: int) -> Tensor:
    """One rank's tokens through the layer."""
    layer = layer_of(group, experts, fraction)
    layer.variant = Variant(dispatch, "loop" if dispatch == "dynamic" else "bmm")
    return layer(local_tokens(rank, num_tokens), local_step(rank, num_tokens))


def outputs_of(group: Group, experts: int, fraction: float, num_tokens: int) -> dict[str, np.ndarray]:
    """By dispatch."""
    return {dispatch: run_local(group, group.rank, dispatch, experts, fraction, num_tokens).numpy() for dispatch in DISPATCHES}


@pytest.mark.parametrize(("size", "experts"), [(2, 2), (2, 8), (4, 8)])
def test_every_rank_gets_what_one_rank_with_all_experts_computes(size: int, experts: int) -> None:
    fraction, num_tokens = 0.25, 24
    for rank, found in enumerate(over_ranks(size, outputs_of, experts, fraction, num_tokens)):
        for dispatch in DISPATCHES:
            expected = run_local(ALONE, rank, dispatch, experts, fraction, num_tokens)
            torch.testing.assert_close(torch.from_numpy(found[dispatch]), expected, rtol=1e-5, atol=1e-5)
            assert rank == 1 or expected.abs().max() > 1e-3


def collectives_of(group: Group, experts: int, fraction: float, num_tokens: int) -> dict[str, CollectiveRecorder]:
    """What every dispatch of tokens without padding sends."""
    found = {}
    for dispatch in DISPATCHES:
        layer, recorder = layer_of(group, experts, fraction), CollectiveRecorder()
        layer.variant = Variant(dispatch, "loop" if dispatch == "dynamic" else "bmm")
        with observed_by(recorder):
            layer(local_tokens(group.rank, num_tokens), Step(None))
        found[dispatch] = recorder
    return found


@dataclass(frozen=True)
class Recorded:
    """What the ranks sent under the paper's LM gating, S tokens each."""

    num_tokens: int
    slots: int
    """E x ceil(C x S)."""
    waste: float
    ranks: list[dict[str, CollectiveRecorder]]

    @property
    def row_bytes(self) -> int:
        return DIM * FLOAT32_BYTES

    def sent(self, dispatch: str, region: str) -> np.ndarray:
        """Bytes from rank to rank."""
        return np.array([dict(recorder[dispatch].bytes)[region] for recorder in self.ranks])


@pytest.fixture(scope="module", params=[(2, 2048, 512 * 103, 12.875), (4, 512, 512 * 26, 13.0)])
def recorded(request: pytest.FixtureRequest) -> Recorded:
    size, num_tokens, slots, waste = request.param
    return Recorded(num_tokens, slots, waste, over_ranks(size, collectives_of, LM_EXPERTS, LM_CAPACITY, num_tokens))


def test_statement_6_token_bytes_of_static_over_dynamic_are_the_waste_factor(recorded: Recorded) -> None:
    for dispatch in ("static", "tutel"):
        there, back = recorded.sent(dispatch, "a2a_dispatch"), recorded.sent(dispatch, "a2a_combine")
        assert (there.sum(axis=1) == recorded.slots * recorded.row_bytes).all()
        assert (there.sum(axis=1) / recorded.sent("dynamic", "a2a_dispatch").sum(axis=1) == recorded.waste).all()
        assert back.sum() / recorded.sent("dynamic", "a2a_combine").sum() == recorded.waste


def test_statement_7_dynamic_gating_sends_sizes_and_tokens_and_gets_one_return_static_has_one_each(recorded: Recorded) -> None:
    for recorder in recorded.ranks:
        regions = {dispatch: [region for region, _ in found.bytes] for dispatch, found in recorder.items()}
        assert regions["dynamic"] == ["a2a_sizes", "a2a_dispatch", "a2a_combine"]
        assert regions["static"] == regions["tutel"] == regions["tutel-dropless"] == ["a2a_dispatch", "a2a_combine"]
    assert (recorded.sent("dynamic", "a2a_sizes").sum(axis=1) == LM_EXPERTS * INT64_BYTES).all()


def test_statement_8_what_a_rank_sends_and_what_all_receive_are_k_times_the_tokens(recorded: Recorded) -> None:
    tokens, returns = recorded.sent("dynamic", "a2a_dispatch"), recorded.sent("dynamic", "a2a_combine")
    assert (tokens.sum(axis=1) == 2 * recorded.num_tokens * recorded.row_bytes).all()
    assert tokens.sum() == 2 * recorded.num_tokens * len(recorded.ranks) * recorded.row_bytes
    assert (returns == tokens.T).all()


def test_padded_buffers_go_in_equal_shares_and_dropless_ones_are_as_large_as_the_busiest_rank_needs(recorded: Recorded) -> None:
    for dispatch in ("static", "tutel", "tutel-dropless"):
        assert all(len(np.unique(recorded.sent(dispatch, region))) == 1 for region in ("a2a_dispatch", "a2a_combine"))
    busiest = max(busiest_load(rank, recorded.num_tokens) for rank in range(len(recorded.ranks)))
    dropless = recorded.sent("tutel-dropless", "a2a_dispatch").sum(axis=1)
    assert (dropless == LM_EXPERTS * busiest * recorded.row_bytes).all()


def busiest_load(rank: int, num_tokens: int) -> int:
    """Choices of the hottest expert of a rank's tokens."""
    layer = layer_of(ALONE, LM_EXPERTS, LM_CAPACITY)
    return int(layer.router(local_tokens(rank, num_tokens), Step(None)).experts_TK.flatten().bincount().max())


def test_the_sizes_are_sent_before_a_rank_waits_for_them(recorded: Recorded) -> None:
    for recorder in recorded.ranks:
        for found in recorder.values():
            assert all(0 < start <= min(wait, end) for start, wait, end in found.times)
            assert [end for *_, end in found.times] == sorted(end for *_, end in found.times)


def occupied(group: Group) -> tuple[int, int, int]:
    """When an exchange was started, waited for and done by a rank that has half a second of other work meanwhile."""
    recorder = CollectiveRecorder()
    with observed_by(recorder):
        all_to_all = AllToAll("a2a_sizes", "3", group, torch.arange(2 * group.size))
        time.sleep(0.5)
        assert all_to_all.end().tolist() == [2 * group.rank, 2 * group.rank + 1] * group.size
    return recorder.times[0]


def test_an_all_to_all_ends_when_its_rows_arrive_and_not_when_a_rank_reads_them() -> None:
    for start, wait, end in over_ranks(2, occupied):
        assert start < end < wait


def test_expert_order_brings_rows_from_all_sources_together() -> None:
    sizes_NL = torch.tensor([[2, 0, 1], [1, 3, 0]])
    arrived = ["a0", "a0", "c0", "a1", "b1", "b1", "b1"]
    assert [arrived[row] for row in expert_order(sizes_NL, 7)] == ["a0", "a0", "a1", "b1", "b1", "b1", "c0"]
    assert expert_order(torch.zeros(2, 3, dtype=torch.int64), 0).tolist() == []
