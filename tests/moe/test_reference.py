"""The dropless reference layer is a weighted sum of experts, and can be trained."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from moeprof.moe.experts import make_ffn
from moeprof.moe.reference import reference_layer
from moeprof.moe.routing import Routing
from moeprof.records.ffn.form import FFNForm
from moeprof.records.ffn.mlp import MLP

from . import plain
from .drawn import Drawn, drawn, make_layer, make_recipe, parameters_of, tokens, unhurried
from .kernels.rows import every_ffn


@every_ffn
@unhurried
@given(case=drawn(max_tokens=6), scale=st.sampled_from([1.0, 0.8]))
def test_the_reference_is_the_plain_sum_over_choices(
    form: FFNForm, bias: bool, activation: str, case: Drawn, scale: float
) -> None:
    shape = {"activation": activation, "ffn": form.name, "ffn_bias": bias}
    layer = make_layer(make_recipe(experts=case.num_experts, top_k=case.top_k, **shape))
    x_TD = tokens(case.num_tokens, 4)
    weights = case.dropless.weights
    expected = plain.layer(x_TD.double().numpy(), case.experts, weights, parameters_of(layer), activation, scale)
    found = reference_layer(x_TD, case.routing, layer.experts.weights, make_ffn(form, activation), scale)
    torch.testing.assert_close(found, torch.tensor(expected).float(), rtol=1e-4, atol=1e-4)


def test_gradients_reach_tokens_probabilities_and_the_experts_in_use_only() -> None:
    layer = make_layer(make_recipe(experts=3)).requires_grad_(True)
    x_TD = tokens(4, 4).requires_grad_(True)
    probs_TK = torch.tensor([[0.5, 0.25]] * 4, requires_grad=True)
    routing = Routing(torch.tensor([[0, 2]] * 4), probs_TK, None, 3)
    y_TD = reference_layer(x_TD, routing, layer.experts.weights, make_ffn(MLP, "gelu"), 1.0)
    y_TD.square().sum().backward()
    assert x_TD.grad is not None
    assert x_TD.grad.abs().amin(dim=1).gt(0).all()
    assert probs_TK.grad is not None
    assert probs_TK.grad.ne(0).all()
    assert layer.experts.w1.grad is not None
    assert layer.experts.w1.grad.abs().sum(dim=(1, 2)).ne(0).tolist() == [True, False, True]
