"""Placements from one half of a trace, judged on the other."""

import numpy as np
import pytest

from moeprof.analysis.placement.trial import cluster_for, crossed_trials, num_moved, trial_of
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.policies.balancing.balancer import Cluster
from tests.policies.balancing.loads import correlated_groups

GREEDY_HELPS_NO_MORE, ANTI_CORRELATION_HELPS = 0.10, 0.30
"""Statement 21."""


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_correlated_groups_gain_from_anti_correlation_and_hardly_from_greedy(seed: int) -> None:
    trial = trial_of([[matrix_of_counts("1", "", np.round(256 * correlated_groups(seed)).astype(np.int64), 2)]])
    before = trial.tops(trial.place("contiguous", Cluster(8, 16)))
    gains = {name: trial.gain(before, trial.tops(trial.place(name, Cluster(8, 16)))) for name in ("greedy", "anti-correlation")}
    assert gains["greedy"].value < GREEDY_HELPS_NO_MORE
    assert gains["anti-correlation"].value > ANTI_CORRELATION_HELPS
    assert gains["anti-correlation"].verdict == "recommended"
    assert (trial.history_steps, trial.test_steps) == (200, 200)


def test_layers_of_a_single_step_are_left_out() -> None:
    layers = [[matrix_of_counts(name, "", np.ones((4, steps), np.int64), 1)] for name, steps in (("1", 1), ("3", 5))]
    trial = trial_of(layers)
    assert list(trial.halves) == ["3"]
    assert (trial.history_steps, trial.test_steps) == (2, 3)


def test_domains_are_judged_on_each_other_layer_by_layer() -> None:
    layers = [
        [
            matrix_of_counts(layer, domain, np.array(counts)[:, None], 1)
            for domain, counts in (("a", [8, 6, 1, 1]), ("b", [1, 1, 6, 8]))
        ]
        for layer in ("0", "7")
    ]
    trials = crossed_trials(layers)
    assert list(trials) == [("a", "b"), ("b", "a")]
    tops = trials["a", "b"].tops(trials["a", "b"].place("greedy", Cluster(2, 2)))
    # by hand: a gives 0, 3 | 1, 2; on b these serve 9 and 7 of 16
    assert {layer: values.tolist() for layer, values in tops.items()} == {"0": [9 / 16], "7": [9 / 16]}


@pytest.mark.parametrize(
    ("name", "devices", "replicas", "slots"),
    [
        ("greedy", 8, 3, 2),
        ("eplb", 8, 3, 5),
        ("eplb", 32, 0, 1),
        ("eplb-distinct", 2, 20, 16),
        ("eplb", 2, 20, 28),
        ("eplb", 3, 1, 7),
    ],
)
def test_devices_have_their_share_and_what_is_left_for_copies(name: str, devices: int, replicas: int, slots: int) -> None:
    assert cluster_for(name, 16, devices, replicas=replicas) == Cluster(devices, slots)


def test_experts_have_moved_where_contiguous_placement_has_them_elsewhere() -> None:
    assert num_moved(np.arange(8).reshape(4, 2), 8) == 0
    assert num_moved(np.array([[0, 2], [1, 3]]), 4) == 2
    assert num_moved(np.array([[0, 1, 3], [2, 3, 0]]), 4) == 2


def test_copies_that_share_a_device_are_fetched_once() -> None:
    assert num_moved(np.array([[0, 1, 3, 3, 3], [2, 3, 0, 0, 1]]), 4) == 3, "3 to the first device, 0 and 1 to the second"
    assert num_moved(np.array([[0, 1, 1], [2, 3, 3]]), 4) == 0
