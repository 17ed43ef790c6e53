"""What an offloading system takes of a model: the next routers' opinions, estimated times."""

import numpy as np
import torch

from moeprof.moe.layer import MoELayer
from moeprof.moe.offloading import Arrangement, Lookahead
from moeprof.policies.offloading.demands import in_high
from moeprof.policies.offloading.planner import HIGH, SKIP, Demand
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


def test_resident_experts_come_first_and_of_the_others_those_with_the_most_rows() -> None:
    arrange = Arrangement("johnson", 4, {HIGH: 100.0, "int4": 30.0}, call_ns=10, row_ns=1)
    demands = [Demand(0), Demand(1), Demand(2), Demand(3), Demand(4, SKIP)]
    order = arrange(demands, [True, False, True, True, True], [1, 9, 5, 3, 2])
    assert [one.expert for one in order] == [4, 1, 2, 3, 0]
