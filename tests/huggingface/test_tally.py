"""Every choice of a call is of one kind, and they add up to rows times K."""

import dataclasses

import pytest
import torch

from moeprof.huggingface.adapters.adapter import Kept
from moeprof.huggingface.capture import Call
from moeprof.huggingface.sites import Site, find_sites
from moeprof.huggingface.tally import Tally, expert_counts, tally
from moeprof.records.errors import MoeprofError
from tests.huggingface.forward import TOKENS_BL, captured
from tests.huggingface.small_models import small_model


@pytest.fixture(scope="module")
def site() -> Site:
    return find_sites(small_model("mixtral"))[0]


def call_of(site: Site, experts_TK: list[list[int]], weight: float = 0.5) -> Call:
    return Call(site, (torch.tensor(experts_TK), torch.full((len(experts_TK), len(experts_TK[0])), weight)), "eager", None)


def test_sentinels_of_other_ranks_are_counted_and_belong_to_no_expert(site: Site) -> None:
    call = call_of(site, [[0, 8], [1, 0], [8, 8]])
    assert tally(call) == Tally(routed=3, padding=0, skipped=0, zero_compute=0, dropped=0, sentinel=3)
    assert expert_counts(call).tolist() == [2, 1, 0, 0, 0, 0, 0, 0]


def test_padding_counts_as_nothing_else(site: Site) -> None:
    call = call_of(site, [[0, 8], [1, 0], [8, 8]])
    real_T = torch.tensor([False, True, True])
    assert tally(call, real_T) == Tally(routed=2, padding=2, skipped=0, zero_compute=0, dropped=0, sentinel=2)
    assert expert_counts(call, real_T).tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_dropped_choices_of_switch_are_those_above_the_capacity_of_a_sequence() -> None:
    """A loop over tokens: each expert takes the first two of a sequence."""
    _, calls = captured(small_model("switch_transformers", expert_capacity=2))
    assert sum(tally(call).dropped for call in calls) > 0
    for call in calls:
        seen: dict[tuple[int, int], int] = {}
        for row, (expert, kept) in enumerate(zip(call.experts_TK[:, 0].tolist(), call.kept_TK[:, 0].tolist(), strict=True)):
            place = seen[row // TOKENS_BL.shape[1], expert] = seen.get((row // TOKENS_BL.shape[1], expert), 0) + 1
            assert kept == (Kept.ROUTED if place <= 2 else Kept.DROPPED)


def test_rows_that_are_not_those_of_the_batch_are_an_error(site: Site) -> None:
    with pytest.raises(MoeprofError, match="layer 0: 1 rows with 2 experts each reached its experts, the batch has 3 rows"):
        tally(call_of(site, [[0, 1]]), torch.ones(3, dtype=torch.bool))


def test_another_number_of_experts_per_row_is_an_error(site: Site) -> None:
    with pytest.raises(
        MoeprofError, match="1 rows with 3 experts each reached its experts, the batch has 1 rows for 2 experts each"
    ):
        tally(call_of(site, [[0, 1, 2]]))
    assert tally(call_of(dataclasses.replace(site, top_k=None), [[0, 1, 2]])).routed == 3


def test_an_expert_that_does_not_exist_is_an_error(site: Site) -> None:
    with pytest.raises(MoeprofError, match="layer 0: 1 of 2 choices are of no expert"):
        tally(call_of(site, [[0, -1]]))


@pytest.mark.parametrize("weight", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_reported_unless_they_are_padding(site: Site, weight: float) -> None:
    call = call_of(site, [[0, 1], [2, 3]])
    call.tensors[1][1, 0] = weight
    with pytest.raises(MoeprofError, match="layer 0: 1 of 4 weights that the experts received are not finite"):
        tally(call)
    assert tally(call, torch.tensor([True, False])).padding == 2


def test_a_model_with_weights_that_are_not_numbers_is_reported() -> None:
    model = small_model("mixtral")
    model.get_submodule("model.layers.2.mlp.gate").weight.data.fill_(torch.nan)
    _, calls = captured(model)
    with pytest.raises(MoeprofError, match="layer 2: 48 of 48 weights"):
        [tally(call) for call in calls]
