"""A prediction becomes hints in the order of shares, and decisions only where it replaces the routers, in the step that it is for."""

import torch

from moeprof.instrument.step import Step
from moeprof.moe.forecast import Forecast
from moeprof.policies.offloading.demands import demands_of, in_high
from moeprof.policies.offloading.planner import SKIP, Demand
from moeprof.records.recipe.offloading import parsed

GATES = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.4, 0.35, 0.2], [0.0, 0.0, 0.1, 0.9]])
"""Shares of four experts for three tokens."""


def forecast(preset: str, *, top_k: int = 2, real_T: torch.Tensor | None = None) -> tuple[Forecast, Step]:
    choice, step = parsed(preset), Step(real_T)
    found = Forecast(choice, {"1": 4, "3": 4}, top_k, in_high, [])
    found.begin(step, {"1": GATES, "3": GATES[:, [3, 2, 1, 0]]})
    return found, step


def ids(demands: list[Demand]) -> list[int]:
    return [one.expert for one in demands]


def test_predicted_experts_are_hinted_at_with_the_largest_sum_of_shares_first() -> None:
    found, _ = forecast("sida:predicted=2")
    # best two of each token: 0 and 1, 1 and 2, 3 and 2; sums 0.5, 0.3 + 0.4, 0.35 + 0.1, 0.9
    assert {layer: ids(hint) for layer, hint in found.hints(-1, ())} == {0: [3, 1, 0, 2], 1: [0, 2, 3, 1]}
    assert {layer: ids(hint) for layer, hint in found.hints(0, ())} == {1: [0, 2, 3, 1]}
    assert list(found.hints(1, ())) == []


def test_padding_asks_for_nothing() -> None:
    found, _ = forecast("sida:predicted=1", real_T=torch.tensor([True, True, False]))
    assert {layer: ids(hint) for layer, hint in found.hints(-1, ())} == {0: [0, 1], 1: [3, 2]}


def test_a_depth_limits_how_far_ahead_is_hinted_and_more_experts_than_there_are_mean_all() -> None:
    found, _ = forecast("sida:depth=1,predicted=9")
    assert {layer: ids(hint) for layer, hint in found.hints(-1, ())} == {0: [3, 1, 2, 0]}  # 1.1, 0.7, 0.6, 0.55


def test_only_a_bypass_decides_and_only_in_the_step_that_was_predicted() -> None:
    exact, step = forecast("sida")
    assert exact.decided("1", step) is None
    bypass, step = forecast("sida:mode=bypass,predicted=4")
    assert bypass.decided("1", Step(None)) is None
    decided = bypass.decided("1", step)
    assert decided is not None
    experts_TK, probs_TK = decided
    assert experts_TK.tolist() == [[0, 1], [1, 2], [3, 2]]
    assert torch.equal(probs_TK, torch.tensor([[0.5, 0.3], [0.4, 0.35], [0.9, 0.1]]))
    assert {layer: ids(hint) for layer, hint in bypass.hints(-1, ())}[0] == [3, 1, 0, 2]


def test_a_load_rule_decides_the_precision_of_a_prediction() -> None:
    choice = parsed("sida:low=int4,shares=0.75:0.25,t1=0.5,t2=0.7")
    found = Forecast(choice, {"1": 4}, 2, demands_of(choice), [])
    found.begin(Step(None), {"1": GATES[:1]})
    # shares 0.5, 0.3, 0.15 of 0.95: unimportance 0, 0.53 and 0.84
    assert [demands for _, demands in found.hints(-1, ())] == [[Demand(0), Demand(1, "int4"), Demand(2, SKIP)]]
