"""The resident store hands out everything at once, without a copy."""

import torch

from moeprof.store.resident import ExpertWeights, ResidentStore


def test_one_wave_holds_views_of_all_experts() -> None:
    weights = ExpertWeights(w1=torch.zeros(4, 2, 3), w2=torch.zeros(4, 3, 2))
    waves = list(ResidentStore(weights).waves())
    assert [wave.experts for wave in waves] == [None]
    assert waves[0].weights is weights


def test_the_waves_can_be_asked_for_again_in_every_step() -> None:
    weights = ExpertWeights(w1=torch.zeros(1, 1, 1))
    store = ResidentStore(weights)
    for _ in range(3):
        store.expect([0, 1])
        assert len(list(store.waves())) == 1
