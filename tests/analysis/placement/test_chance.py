"""What chance makes of placements that are all alike in the long run: hardly ever a gain."""

import numpy as np
import pytest

from moeprof.analysis.placement.balance_rows import BalanceInputs, PhaseLoads, along_rows, phases_of
from moeprof.analysis.placement.rebalancing_rows import Rebalanced
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.records.run.replay import BalanceRequest

BALANCERS = ["contiguous", "round-robin", "greedy", "anti-correlation"]
TRACE = {"name": "a", "path": "a", "workload": "lm", "num_experts": 8, "top_k": 1, "layers": ["0"], "decisions": {}}
DRAWN, STEPS, TOKENS = 40, 40, 32


def even_steps(seed: int) -> LoadMatrix:
    """Steps of tokens that choose any expert equally often, whatever the step before did."""
    counts_BE = np.random.default_rng(seed).multinomial(TOKENS, [1 / 8] * 8, STEPS)
    return matrix_of_counts("0", "", counts_BE.T, 1)


def phase_of(seed: int) -> PhaseLoads:
    asked = {"balancers": BALANCERS, "devices": [4], "phase": "decode", "bandwidth": 1, "node_bandwidth": 1}
    balance = BalanceRequest.model_validate({"trace": TRACE, "every": [5, 10], "window": 10} | asked)
    (phase,) = phases_of(balance, BalanceInputs("static", {"decode": [[even_steps(seed)]]}))
    return phase


def seem_to_gain(seed: int, metric: str) -> list[str]:
    """The strategies along a trace whose whole interval is above 0."""
    return [row.point for row in along_rows(phase_of(seed), BALANCERS) if row.metric == f"{metric}_low" and row.value > 0]


@pytest.mark.parametrize("metric", ["rebalance_gain", "repeat_gain"])
def test_on_even_loads_no_more_traces_than_stated_seem_to_gain_from_any_strategy(metric: str) -> None:
    """At most 2.5%, whether strategies are compared with contiguous placement or with the best placement made once."""
    assert sum(bool(seem_to_gain(seed, metric)) for seed in range(DRAWN)) <= 0.025 * DRAWN


def test_without_the_count_of_strategies_chance_would_gain_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rebalanced, "over_contiguous", lambda self, strategy: self.gain(self.contiguous, strategy, 1))
    assert sum(bool(seem_to_gain(seed, "rebalance_gain")) for seed in range(DRAWN)) > 0.025 * DRAWN
