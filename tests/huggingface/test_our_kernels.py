"""The experts of a model under our dispatch and kernels compute what they do under its own backend, without a copy of the weights."""

from itertools import product

import pytest
import torch
from torch import Tensor

from moeprof.huggingface import layer as layer_module
from moeprof.huggingface.layer import OWN
from moeprof.huggingface.sites import find_sites
from moeprof.instrument.probe import observed_by
from moeprof.instrument.regions import RegionTimer, cpu_stopwatch
from moeprof.moe.kernels import KERNELS
from moeprof.moe.layer import use_variant
from moeprof.records.errors import UsageError
from moeprof.records.recipe.variant import Variant
from tests.huggingface.buffered import buffers, first, in_slots, layers_of, relative, under
from tests.huggingface.forward import forward
from tests.huggingface.small_models import NUM_EXPERTS, small_model

QUICK = ["mixtral", "gpt_oss", "deepseek_v3", "olmoe"]
SLOW = ["afmoe", "beam", "deepseek_v4", "granitemoe", "hy_v3", "hy_v4", "jamba", "nemotron_h", "phimoe", "qwen3_next"]
"""Among them: clamped factors, an activation in float32, experts without a gate, weights that are scaled or not normalised."""
ARCHITECTURES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
EVERY_KERNEL = [Variant("dynamic", kernel=name) for name in KERNELS if name != "bmm"] + [Variant("tutel-dropless")]
WHOLE = 1.0
"""C with which no choice is dropped: every expert has a slot for each token."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_are_those_of_the_models_own_backend(architecture: str) -> None:
    """Also with static capacity that drops nothing, and with experts in slots."""
    model = small_model(architecture)
    expected, layers = forward(model), layers_of(model, WHOLE)
    padded = [Variant("static", kernel="bmm"), Variant("tutel")] if architecture != "deepseek_v4" else []  # it repeats experts
    with buffers(layers) as opened:
        opened.fit(in_slots(dispatch="dynamic"))
        for variant in (*EVERY_KERNEL, *padded, in_slots(dispatch="dynamic")):
            found = under(variant, model, layers)
            assert relative(found, expected) <= 1e-5, variant
            assert torch.equal(found.argmax(dim=-1), expected.argmax(dim=-1)), variant
    assert torch.equal(forward(model), expected)


@pytest.mark.parametrize("architecture", ["mixtral", "gpt_oss"])
def test_kernels_get_views_of_the_parameters(architecture: str) -> None:
    """Matrices with their inputs first, as kernels want them, which Mixtral stores the other way round and gpt-oss does not."""
    layer = first(layers_of(small_model(architecture)))
    views, own = layer.weights_under(Variant("dynamic")), layer.weights
    assert sorted(view.data_ptr() for view in views.values()) == sorted(whole.data_ptr() for whole in own.values())
    assert views["up"].shape[:2] == (NUM_EXPERTS, 32)
    assert views["down"].shape[2] == 32
    assert all(layer.weights_under(Variant(OWN))[name] is whole for name, whole in own.items())


def drawn(num_tokens: int, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, and distinct experts of each token with weights that are neither sorted nor normalised."""
    generator = torch.Generator().manual_seed(1)
    experts_TK = torch.rand(num_tokens, NUM_EXPERTS, generator=generator).argsort(dim=1)[:, :top_k]
    return torch.randn(num_tokens, 32, generator=generator), experts_TK, torch.rand(num_tokens, top_k, generator=generator)


def test_static_capacity_drops_what_is_over_it_and_changes_no_other_weight() -> None:
    """With the default C = 1.25 k / E, 16 tokens and k = 2: ceil(0.3125 x 16) = 5 slots, first choices before second ones."""
    layer, (x_TD, experts_TK, weights_TK) = first(layers_of(small_model("mixtral"))), drawn(16, 2)
    experts_TK[:7, 0] = 3
    experts_TK[:7, 1] = torch.arange(7) % 3
    layer.use(Variant("static"))
    found_TD = layer.experts(x_TD, experts_TK, weights_TK)
    layer.use(None)
    waiting, dropped_TK = [0] * NUM_EXPERTS, torch.zeros(16, 2, dtype=torch.bool)
    for rank, token in product(range(2), range(16)):
        slot = int(weights_TK[token].argsort(descending=True)[rank])
        expert = int(experts_TK[token, slot])
        dropped_TK[token, slot] = waiting[expert] >= 5
        waiting[expert] += 1
    expected_TD = layer.experts(x_TD, experts_TK, weights_TK.masked_fill(dropped_TK, 0))
    assert dropped_TK.sum() >= 2
    assert layer.dropped_TK is not None
    assert torch.equal(layer.dropped_TK, dropped_TK.gather(1, weights_TK.argsort(dim=1, descending=True)))
    assert layer.num_rows == NUM_EXPERTS * 5
    assert relative(found_TD, expected_TD) <= 1e-5


def test_a_given_capacity_replaces_the_default_one() -> None:
    layer, call = first(layers_of(small_model("mixtral"), 0.5)), drawn(10, 2)
    layer.use(Variant("static"))
    layer.experts(*call)
    layer.use(None)
    assert layer.num_rows == NUM_EXPERTS * 5


def test_padding_takes_no_row() -> None:
    layer, (x_TD, experts_TK, weights_TK) = first(layers_of(small_model("mixtral"))), drawn(6, 2)
    expected_TD = layer.experts(x_TD, experts_TK, weights_TK)
    layer.real_T = torch.tensor([True, False, True, True, False, True])
    layer.use(Variant("dynamic"))
    found_TD = layer.experts(x_TD, experts_TK, weights_TK)
    layer.use(None)
    assert layer.num_rows == 4 * 2
    assert not found_TD[~layer.real_T].any()
    assert relative(found_TD[layer.real_T], expected_TD[layer.real_T]) <= 1e-5


def test_half_precision_differs_by_its_rounding() -> None:
    """bfloat16 has 8 bits: 2**-8 each for the sum of two weighted outputs and the factors in them."""
    model = small_model("mixtral").to(torch.bfloat16)
    layer, (x_TD, experts_TK, weights_TK) = first(layers_of(model)), drawn(16, 2)
    expected_TD = layer.experts(x_TD.bfloat16(), experts_TK, weights_TK)
    layer.use(Variant("dynamic"))
    found_TD = layer.experts(x_TD.bfloat16(), experts_TK, weights_TK)
    layer.use(None)
    assert found_TD.dtype == expected_TD.dtype
    assert relative(found_TD.float(), expected_TD.float()) <= 4 * 2**-8


@pytest.mark.parametrize(
    ("variant", "regions"),
    [
        (Variant("dynamic"), {"dispatch", "experts", "combine"}),
        (in_slots(), {"expert_load", "experts"}),
    ],
)
def test_the_parts_of_a_layer_are_regions(variant: Variant, regions: set[str]) -> None:
    ticks = iter(range(10**6))
    model, timer = small_model("mixtral"), RegionTimer(cpu_stopwatch(lambda: next(ticks)))
    layers = layers_of(model)
    with buffers(layers) as opened, observed_by(timer):
        if variant.in_slots:
            opened.fit(variant)
        use_variant(layers, variant)
        forward(model)
        use_variant(layers, None)
    assert set(timer.keys) == {(name, layer) for name in regions for layer in "0123"}


def test_reordering_tokens_belongs_to_the_region_dispatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dispatch that looks at the timer finds its region begun and not ended."""
    model, timer, seen = small_model("mixtral"), RegionTimer(cpu_stopwatch(lambda: 0)), list[tuple[str, int]]()
    whole, layers = layer_module.dispatch_function, layers_of(model)

    def looking(name: str) -> object:
        seen.append((timer.keys[-1][0], len(timer.marks) % 2))
        return whole(name)

    monkeypatch.setattr(layer_module, "dispatch_function", looking)
    with observed_by(timer):
        under(Variant("dynamic"), model, layers)
    assert seen == [("dispatch", 1)] * 4


def test_experts_that_do_not_say_how_they_are_stored_are_refused_and_can_be_buffered() -> None:
    """As those of step3p7, to which the decorator is not applied."""
    model = small_model("mixtral")
    model.set_experts_implementation("eager")
    expected = forward(model)
    for site in find_sites(model):
        del site.experts.has_gate
    layers = layers_of(model)
    with pytest.raises(UsageError, match=r"layer 0 \(model.layers.0.mlp.experts\): MixtralExperts does not say how"):
        use_variant(layers, Variant("dynamic"))
    with buffers(layers) as opened:
        opened.fit(in_slots())
        assert torch.equal(under(in_slots(), model, layers), expected)


@pytest.mark.parametrize(
    ("dtype", "extra", "why"),
    [(torch.uint8, None, "has quantised experts"), (torch.float32, "scale", "other tensors than our kernels know: scale")],
)
def test_tensors_that_kernels_cannot_take_are_refused(dtype: torch.dtype, extra: str | None, why: str) -> None:
    model = small_model("mixtral")
    for site in find_sites(model):
        site.experts.down_proj = torch.nn.Parameter(site.experts.down_proj.to(dtype), requires_grad=False)
        if extra:
            site.experts.register_parameter(extra, torch.nn.Parameter(torch.ones(NUM_EXPERTS, 1)))
    with pytest.raises(UsageError, match=why):
        use_variant(layers_of(model), Variant("dynamic"))
