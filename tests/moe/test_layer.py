"""The layer's outputs: every dispatch with every kernel beside the plain loops, and beside each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from moeprof.instrument.step import Step
from moeprof.moe.dispatch import dispatch_function
from moeprof.moe.layer import force_routing, moe_layers, use_variant
from moeprof.records.recipe.dispatch import DISPATCHES
from moeprof.records.recipe.gating import capacity
from moeprof.records.recipe.variant import STATIC, Variant

from . import plain
from .drawn import (
    Decided,
    Drawn,
    WaveStore,
    called,
    drawn,
    every_variant,
    forced_layer,
    fractions,
    make_layer,
    make_recipe,
    parameters_of,
    rows_that_differ,
    tokens,
    under,
    unhurried,
)

ALL_REAL = Step(real_T=None)
DIM = 4
CAPPED = ("static", "tutel")
DYNAMIC = Variant("dynamic")


def gated_by(variant: Variant, case: Drawn, fraction: float) -> plain.Gated:
    """What becomes of every choice: with slots as a fraction of the tokens, or with room for everybody."""
    return case.gated(capacity(fraction, case.num_tokens)) if variant.dispatch in CAPPED else case.dropless


@every_variant
@settings(unhurried, max_examples=60)
@given(case=drawn(max_tokens=8), fraction=fractions(), masking=st.sampled_from([0.0, 0.2]))
def test_every_dispatch_with_every_kernel_is_the_plain_layer_with_its_drops(
    device: str, variant: Variant, case: Drawn, fraction: float, masking: float
) -> None:
    layer, x_TD = forced_layer(case, fraction, masking=masking).to(device), tokens(case.num_tokens, DIM).to(device)
    weights = gated_by(variant, case, fraction).weights
    expected = plain.layer(x_TD.cpu().double().numpy(), case.experts, weights, parameters_of(layer), "relu", 1 - masking)
    found_TD = under(layer, x_TD, case.step_on(device), variant)
    torch.testing.assert_close(found_TD.cpu(), torch.tensor(expected).float(), rtol=1e-4, atol=1e-4)


@every_variant
@settings(unhurried, max_examples=25)
@given(case=drawn(max_tokens=8), fraction=fractions())
def test_in_bfloat16_every_dispatch_with_every_kernel_stays_near_the_plain_layer(
    device: str, variant: Variant, case: Drawn, fraction: float
) -> None:
    layer, x_TD = forced_layer(case, fraction, dim=8).to(device), tokens(case.num_tokens, 8).to(device).bfloat16()
    layer.experts.bfloat16()
    weights = gated_by(variant, case, fraction).weights
    expected = plain.layer(x_TD.cpu().double().numpy(), case.experts, weights, parameters_of(layer), "relu", 1.0)
    found_TD = under(layer, x_TD, case.step_on(device), variant)
    assert found_TD.dtype == torch.bfloat16
    torch.testing.assert_close(found_TD.float().cpu(), torch.tensor(expected).float(), rtol=0.05, atol=0.3)


def test_the_kernel_bmm_is_refused_under_dynamic_gating() -> None:
    layer = make_layer(make_recipe(experts=4, dim=DIM))
    with pytest.raises(ValueError, match="kernel bmm needs equally many rows of every expert"):
        under(layer, tokens(8, DIM), ALL_REAL, Variant("dynamic", "bmm"))


def just_enough(case: Drawn) -> float:
    """The smallest capacity fraction of two decimals under which the busiest expert drops nothing."""
    wanted = (percent / 100 for percent in range(1, 101))
    return next(fraction for fraction in wanted if capacity(fraction, case.num_tokens) >= max(case.loads))


@pytest.mark.parametrize("dispatch", DISPATCHES)
@unhurried
@given(case=drawn())
def test_statement_3_with_just_enough_room_all_dispatches_agree_with_the_reference(
    device: str, dispatch: str, case: Drawn
) -> None:
    layer, x_TD = forced_layer(case, just_enough(case)).to(device), tokens(case.num_tokens, DIM).to(device)
    found_TD = under(layer, x_TD, case.step_on(device), Variant(dispatch))
    torch.testing.assert_close(found_TD, under(layer, x_TD, case.step_on(device), None), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found_TD, under(layer, x_TD, case.step_on(device), DYNAMIC), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dispatch", CAPPED)
@unhurried
@given(case=drawn(), fraction=fractions())
def test_statement_3_outputs_differ_from_dynamic_gating_on_exactly_the_tokens_that_lost_a_choice(
    device: str, dispatch: str, case: Drawn, fraction: float
) -> None:
    layer, x_TD = forced_layer(case, fraction).to(device), tokens(case.num_tokens, DIM).to(device)
    capped_TD, dynamic_TD = (under(layer, x_TD, case.step_on(device), variant) for variant in (Variant(dispatch), DYNAMIC))
    assert rows_that_differ(capped_TD, dynamic_TD) == case.gated(capacity(fraction, case.num_tokens)).losers


@unhurried
@given(drawn(), fractions())
def test_static_gating_and_tutel_give_the_same_outputs_whatever_is_dropped(device: str, case: Drawn, fraction: float) -> None:
    layer, x_TD = forced_layer(case, fraction).to(device), tokens(case.num_tokens, DIM).to(device)
    static_TD, tutel_TD = (under(layer, x_TD, case.step_on(device), Variant(dispatch)) for dispatch in CAPPED)
    torch.testing.assert_close(tutel_TD, static_TD, rtol=1e-5, atol=1e-5)


def skewed(num_tokens: int = 256, num_experts: int = 16) -> list[list[int]]:
    """First choices in turns; of the second ones each of eight hot experts gets 26 and each of eight cold ones 6."""
    firsts = [token % num_experts for token in range(num_tokens)]
    seconds: list[int] = []
    left = {expert: 26 if expert < 8 else 6 for expert in range(num_experts)}
    for first in firsts:
        second = max((expert for expert in left if expert != first), key=lambda expert: left[expert])
        left[second] -= 1
        seconds.append(second)
    assert set(left.values()) == {0}
    return [list(pair) for pair in zip(firsts, seconds, strict=True)]


@pytest.mark.parametrize("dispatch", CAPPED)
@pytest.mark.parametrize(("fraction", "slots", "lost"), [(0.1, 416, 128), (0.25, 1024, 0), (1.0, 4096, 0)])
def test_statement_3_with_the_papers_numbers(device: str, dispatch: str, fraction: float, slots: int, lost: int) -> None:
    """S = 256, E = 16: at C = 0.1 experts with 42 of 512 choices take 26, so that 128 tokens lose one, and those differ."""
    experts, probs = skewed(), [[0.5, 0.25]] * 256
    layer = make_layer(make_recipe(experts=16, capacity_fraction=fraction, dim=DIM)).to(device)
    layer.router.forced = Decided(torch.tensor(experts), torch.tensor(probs))
    x_TD = tokens(256, DIM).to(device)
    dispatched, needed = (
        dispatch_function(name)(x_TD, layer.router(x_TD, ALL_REAL), fraction) for name in (dispatch, "dynamic")
    )
    assert (len(dispatched.rows.rows_RD), len(needed.rows.rows_RD)) == (slots, 512)
    losers = plain.gated(experts, probs, [True] * 256, 16, slots // 16).losers
    assert len(losers) == lost
    assert dispatched.dropped_TK is not None
    assert set(dispatched.dropped_TK.any(dim=1).nonzero().flatten().tolist()) == losers
    capped_TD, dynamic_TD = (under(layer, x_TD, ALL_REAL, variant) for variant in (Variant(dispatch), DYNAMIC))
    assert rows_that_differ(capped_TD, dynamic_TD) == losers


@every_variant
@pytest.mark.parametrize("sizes", [[16], [8, 8], [5, 5, 6], [1] * 16], ids=str)
def test_experts_in_waves_give_the_layer_the_same_output(device: str, variant: Variant, sizes: list[int]) -> None:
    layer = make_layer(make_recipe(experts=16, capacity_fraction=0.1, dim=DIM)).to(device)
    x_TD = tokens(64, DIM).to(device)
    resident_TD = under(layer, x_TD, ALL_REAL, variant)
    layer.store = WaveStore(layer.experts.weights, sizes)
    torch.testing.assert_close(layer(x_TD, ALL_REAL), resident_TD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", [None, *map(Variant, DISPATCHES)], ids=called)
def test_expert_outputs_shrink_by_the_share_that_training_masked(device: str, variant: Variant | None) -> None:
    """NLLB multiplies expert outputs by 1 - 0.2 at inference, under every dispatch as in the reference."""
    x_TD = tokens(8, DIM).to(device)
    whole_TD, masked_TD = (
        under(make_layer(make_recipe(experts=4, masking=masking)).to(device), x_TD, ALL_REAL, variant) for masking in (0.0, 0.2)
    )
    torch.testing.assert_close(masked_TD, 0.8 * whole_TD)


@every_variant
def test_the_same_input_gives_the_same_bits_again(device: str, variant: Variant) -> None:
    layer, x_TD = make_layer(make_recipe(experts=8, capacity_fraction=0.2)).to(device), tokens(50, DIM).to(device)
    assert torch.equal(under(layer, x_TD, ALL_REAL, variant), under(layer, x_TD, ALL_REAL, variant))


@every_variant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_layer_in_16_bits_stays_near_the_float32_one(device: str, variant: Variant, dtype: torch.dtype) -> None:
    layer, x_TD = make_layer(make_recipe(experts=8, dim=8)).to(device), tokens(50, 8).to(device, dtype)
    routing = layer.router(x_TD, ALL_REAL)
    exact_TD = under(layer, x_TD.float(), ALL_REAL, variant)
    layer.experts.to(dtype)
    y_TD = layer(x_TD, ALL_REAL)
    assert y_TD.dtype == dtype
    assert routing.probs_TK.dtype == torch.float32
    torch.testing.assert_close(y_TD.float(), exact_TD, rtol=0.05, atol=0.2)


def test_a_token_that_is_not_finite_spoils_no_other_token_under_dynamic_gating(device: str) -> None:
    layer, x_TD = make_layer(make_recipe(experts=4)).to(device), tokens(9, DIM).to(device)
    clean_TD = under(layer, x_TD, ALL_REAL, DYNAMIC)
    x_TD[3] = torch.nan
    others = torch.arange(9) != 3
    torch.testing.assert_close(layer(x_TD, ALL_REAL)[others], clean_TD[others])


def test_variants_and_forced_decisions_reach_every_layer_of_a_model_and_can_be_taken_back() -> None:
    model = nn.Sequential(
        nn.Linear(2, 2), nn.Sequential(make_layer(make_recipe(experts=4))), make_layer(make_recipe(experts=4))
    )
    layers = moe_layers(model)
    assert layers == [model[1][0], model[2]]
    forced = Decided(torch.zeros(1, 2, dtype=torch.int64))
    use_variant(model, None)
    force_routing(model, forced)
    assert [(layer.variant, layer.router.forced) for layer in layers] == [(None, forced)] * 2
    use_variant(model, STATIC)
    force_routing(model, None)
    assert [(layer.variant, layer.router.forced) for layer in layers] == [(STATIC, None)] * 2
