"""What an offloading system takes of a model: the next routers' opinions, estimated times."""

import numpy as np
import torch

from moeprof.moe.layer import MoELayer
from moeprof.moe.offloading import Lookahead
from moeprof.policies.offloading.demands import in_high
from moeprof.policies.offloading.planner import Demand
from moeprof.records.recipe.files import load_recipe


def test_the_lookahead_is_what_the_next_routers_would_choose_for_the_rows_of_this_layer() -> None:
    recipe = load_recipe("lm-tiny")
    layers = [MoELayer(str(number), recipe) for number in range(3)]
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        torch.nn.init.normal_(layer.router.weight, generator=generator)
    x_TD = torch.randn(5, 128, generator=generator)
    with torch.no_grad():
        hints = dict(Lookahead(layers, 9, in_high).hints(0, [], x_TD))
    assert list(hints) == [1, 2]
    for target, demands in hints.items():
        scores_TE = x_TD.numpy().astype(np.float64) @ layers[target].router.weight.detach().numpy().T
        chosen = np.unique(np.argsort(-scores_TE, axis=1)[:, :2])
        assert demands == [Demand(int(expert)) for expert in chosen]


def test_the_last_layer_foresees_nothing_and_a_depth_ends_the_lookahead() -> None:
    layers = [MoELayer(str(number), load_recipe("lm-tiny")) for number in range(3)]
    for layer in layers:
        torch.nn.init.zeros_(layer.router.weight)
    with torch.no_grad():
        assert list(Lookahead(layers, 1, in_high).hints(2, [], torch.ones(1, 128))) == []
        assert [target for target, _ in Lookahead(layers, 1, in_high).hints(0, [], torch.ones(1, 128))] == [1]
