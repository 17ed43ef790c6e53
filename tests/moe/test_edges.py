"""Routings at the edges, through every dispatch with every kernel and the reference: each comes out as the plain loops say."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moeprof.records.recipe.gating import capacity
from moeprof.records.recipe.variant import Variant

from . import plain
from .drawn import VARIANTS, Drawn, WaveStore, called, forced_layer, parameters_of, tokens, under, wanting

DIM = 4


def in_turns(num_tokens: int, num_experts: int, top_k: int) -> Drawn:
    """Every token chooses the experts behind those of the one before: all loads equal, or nearly so."""
    return wanting(
        [[(token * top_k + choice) % num_experts for choice in range(top_k)] for token in range(num_tokens)], num_experts
    )


EDGES = {
    "one token": wanting([[2, 0]], 4),
    "one token and padding around it": wanting([[1, 0], [2, 0], [3, 1]], 4, mask=[False, True, False]),
    "one token and many experts": wanting([[63, 5]], 64),
    "one expert takes every token": wanting([[2]] * 9, 4),
    "one expert is everybody's second choice": wanting([[token % 3, 3] for token in range(9)], 4),
    "the first expert has no token": wanting([[1, 2], [2, 3], [3, 1]], 4),
    "an expert in the middle has no token": wanting([[0, 3], [3, 0], [0, 1]], 4),
    "the last expert has no token": wanting([[0, 1], [1, 2], [2, 0]], 4),
    "the last expert has the most": wanting([[3, token % 3] for token in range(8)], 4),
    "the first expert has the most": wanting([[0, 1 + token % 3] for token in range(8)], 4),
    "a short last segment behind a long one": wanting([[1]] * 8 + [[2], [0]], 3),
    "k = 1": in_turns(7, 5, 1),
    "k = 8 of 8": in_turns(5, 8, 8),
    "k = 8 of 11": in_turns(5, 11, 8),
    "one expert": wanting([[0]] * 6, 1),
    "one expert and one token": wanting([[0]], 1),
    "equal loads": in_turns(8, 4, 2),
    "more experts than choices": in_turns(3, 40, 2),
}


every_way = pytest.mark.parametrize("variant", [None, *VARIANTS], ids=called)


def plainly(case: Drawn, variant: Variant | None, fraction: float, parameters: list[plain.Array]) -> Tensor:
    """The layer's output in plain loops."""
    capped = variant is not None and variant.dispatch in ("static", "tutel")
    gated = case.gated(capacity(fraction, case.num_tokens)) if capped else case.dropless
    x_TD = tokens(case.num_tokens, DIM).double().numpy()
    return torch.tensor(plain.layer(x_TD, case.experts, gated.weights, parameters, "relu", 1.0)).float()


@every_way
@pytest.mark.parametrize("fraction", [1.0, 0.25])
@pytest.mark.parametrize("case", EDGES.values(), ids=EDGES)
def test_a_routing_at_the_edge_comes_out_as_the_plain_loops_say(
    device: str, variant: Variant | None, case: Drawn, fraction: float
) -> None:
    layer = forced_layer(case, fraction).to(device)
    found_TD = under(layer, tokens(case.num_tokens, DIM).to(device), case.step_on(device), variant)
    torch.testing.assert_close(found_TD.cpu(), plainly(case, variant, fraction, parameters_of(layer)), rtol=1e-4, atol=1e-4)


@every_way
@pytest.mark.parametrize("num_tokens", [1, 5])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("sizes", [[4], [1, 3]], ids=str)
def test_a_batch_of_nothing_but_padding_comes_out_as_zeros(
    device: str, variant: Variant | None, num_tokens: int, known: bool, sizes: list[int]
) -> None:
    case = wanting([[2, 0]] * num_tokens, 4, mask=[False] * num_tokens)
    layer = forced_layer(case, 0.5).to(device)
    layer.store = WaveStore(layer.experts.weights, sizes)
    step = replace(case.step_on(device), num_real=0 if known else None)
    assert under(layer, tokens(num_tokens, DIM).to(device), step, variant).tolist() == [[0.0] * DIM] * num_tokens


# Static gating is left out: its products with the mask meet every row and every token, and zero times infinity is no number.
by_index = pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant.dispatch != "static"], ids=called)


@by_index
def test_an_expert_that_nobody_chose_may_hold_anything(device: str, variant: Variant) -> None:
    case = EDGES["an expert in the middle has no token"]
    layer, x_TD = forced_layer(case).to(device), tokens(case.num_tokens, DIM).to(device)
    clean_TD = under(layer, x_TD, case.step_on(device), variant)
    layer.experts.w1[2] = torch.nan
    torch.testing.assert_close(layer(x_TD, case.step_on(device)), clean_TD)


@by_index
def test_padding_may_hold_anything(device: str, variant: Variant) -> None:
    case = wanting([[0, 1], [2, 3], [1, 2]], 4, mask=[True, False, True])
    layer, x_TD = forced_layer(case).to(device), tokens(3, DIM).to(device)
    clean_TD = under(layer, x_TD, case.step_on(device), variant)
    x_TD[1] = torch.inf
    torch.testing.assert_close(layer(x_TD, case.step_on(device))[[0, 2]], clean_TD[[0, 2]])
