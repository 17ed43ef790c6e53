"""What a step needs follows from ids and weights as related.md states for HOBBIT and M2Cache."""

import numpy as np
import pytest

from moeprof.policies.offloading.demands import ByRank, ByRule, active, demands_of, in_high
from moeprof.policies.offloading.planner import HIGH, SKIP, Demand
from moeprof.policies.offloading.rule import LoadRule
from moeprof.records.errors import UsageError
from moeprof.records.recipe.offloading import PRESETS, parsed

EXPERTS_TK = np.array([[0, 1, 2], [3, 1, 0], [5, 5, 5]])  # the last row is padding: there are 5 experts
WEIGHTS_TK = np.array([[0.65, 0.28, 0.07], [0.5, 0.3, 0.2], [0, 0, 0]])


def test_padding_needs_nothing_and_ids_rise() -> None:
    assert active(EXPERTS_TK, 5) == [0, 1, 2, 3]
    assert in_high(EXPERTS_TK, WEIGHTS_TK, 5) == [Demand(expert, HIGH) for expert in range(4)]


def test_the_load_rule_takes_the_most_important_token_of_each_expert() -> None:
    # s of token 0: 0, 0.65, 0.93; of token 1: 0, 0.5, 0.8. Least of each expert: 0: 0, 1: 0.5, 2: 0.93, 3: 0.
    demands = ByRule(LoadRule(0.45, 0.9), "int4")(EXPERTS_TK, WEIGHTS_TK, 5)
    assert demands == [Demand(0, HIGH), Demand(1, "int4"), Demand(2, SKIP), Demand(3, HIGH)]


def test_the_mix_by_rank_gives_shares_of_the_experts_of_a_step_by_their_weight() -> None:
    # weights: 0: 0.85, 1: 0.58, 3: 0.5, 2: 0.07
    mix = ByRank({HIGH: 0.25, "int8": 0.25, "int4": 0.5})
    assert mix(EXPERTS_TK, WEIGHTS_TK, 5) == [Demand(0, HIGH), Demand(1, "int8"), Demand(2, "int4"), Demand(3, "int4")]


def test_of_a_single_expert_the_mix_takes_the_high_precision() -> None:
    mix = ByRank({HIGH: 0.25, "int8": 0.25, "int4": 0.5})
    assert mix(np.array([[2]]), np.array([[1.0]]), 5) == [Demand(2, HIGH)]


@pytest.mark.parametrize(("text", "kind"), [("hobbit", ByRule), ("m2cache", ByRank)])
def test_the_presets_say_which_demands_they_make(text: str, kind: type) -> None:
    assert isinstance(demands_of(PRESETS[text]), kind)


def test_with_both_thresholds_at_one_everything_is_loaded_in_high_precision() -> None:
    assert demands_of(parsed("hobbit:t1=1,t2=1")) is in_high


def test_the_placebo_takes_the_best_choice_for_the_worst() -> None:
    """Weights 0.6, 0.3, 0.1 count as 0.1, 0.3, 0.6; a second token in another order."""
    experts_TK, weights_TK = np.array([[4, 5, 6], [5, 6, 4]]), np.array([[0.6, 0.3, 0.1], [0.1, 0.6, 0.3]])
    turned_TK = np.array([[0.1, 0.3, 0.6], [0.6, 0.1, 0.3]])
    for text in ("hobbit", "m2cache"):
        plain, placebo = demands_of(parsed(text)), demands_of(parsed(f"{text}:reversed=yes"))
        assert placebo(experts_TK, weights_TK, 8) == plain(experts_TK, turned_TK, 8)
        assert placebo(experts_TK, turned_TK, 8) == plain(experts_TK, weights_TK, 8)
    with pytest.raises(UsageError, match="no weights decide"):
        parsed("on-demand:reversed=yes")
