"""What the paper says of placements (6.5, statements 20, 21 and 23), on steps that this project's own zipf routing draws."""

import numpy as np
import pytest

from moeprof.analysis.placement.device_load import floor_shares, load_values
from moeprof.analysis.placement.trial import Trial, trial_of
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.instrument.step import make_step
from moeprof.moe.forced import ZipfSource
from moeprof.policies.balancing.balancer import Cluster
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.routing_source import parse_routing_source

STEPS, SEQUENCES, LENGTH = 20, 8, 64
DEVICES = 8


def trial(source: str, recipe: str) -> Trial:
    """One layer of a recipe's gating, 512 tokens a step."""
    model, top_k = load_recipe(recipe, []).model, load_recipe(recipe, []).gating.top_k
    drawn = ZipfSource(parse_routing_source(source), model.experts, top_k)
    tokens_BL, counts = np.zeros((SEQUENCES, LENGTH), np.int64), []
    for index in range(STEPS):
        sequence_B = SEQUENCES * index + np.arange(SEQUENCES)
        step = make_step("score", index, "", tokens_BL, tokens_BL == 0, sequence_B, 0, "cpu")
        counts.append(np.bincount(drawn.draw("1", step)[0].ravel(), minlength=model.experts))
    return trial_of([[matrix_of_counts("1", "", np.array(counts).T, top_k)]])


def loads(trial: Trial, name: str) -> tuple[float, float]:
    """Max load and avg max load on the test half."""
    experts = trial.halves["1"].test.num_experts
    found = load_values(trial.tops(trial.place(name, Cluster(DEVICES, experts // DEVICES)))["1"])
    return found["max_load"], found["avg_max_load"]


@pytest.mark.parametrize("recipe", ["lm-small", "mt-small"])
def test_sorted_zipf_falls_from_above_0_6_to_below_0_4_as_in_the_paper(recipe: str) -> None:
    """The paper's 512 experts, and its 128, top-2."""
    skewed = trial("zipf:1.2,sorted", recipe)
    assert min(loads(skewed, "contiguous")) > 0.6
    assert max(loads(skewed, "greedy")) < 0.4


@pytest.mark.parametrize("source", ["zipf:1.2,sorted", "zipf:1.2", "zipf:1.2,seed=1", "uniform"])
@pytest.mark.parametrize("recipe", ["lm-tiny", "mt-tiny", "lm-small"])
def test_a_stationary_skew_gains_on_what_was_not_seen_and_nothing_passes_the_floor(source: str, recipe: str) -> None:
    drawn = trial(source, recipe)
    floor = load_values(floor_shares(drawn.halves["1"].test, DEVICES))
    found = {name: loads(drawn, name) for name in ("contiguous", "greedy", "anti-correlation")}
    for most, mean in found.values():
        assert 1 / DEVICES <= mean <= most <= 1
        assert mean >= floor["avg_max_load"] - 1e-12
        assert most >= floor["max_load"] - 1e-12


@pytest.mark.parametrize("recipe", ["lm-tiny", "mt-tiny", "lm-small"])
def test_statement_21_greedy_gains_on_sorted_loads(recipe: str) -> None:
    drawn = trial("zipf:1.2,sorted", recipe)  # unsorted, chance may have left nothing to gain
    assert loads(drawn, "greedy")[1] < loads(drawn, "contiguous")[1]
