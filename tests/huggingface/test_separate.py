"""Experts that are modules of their own are stacked once, and every variant computes with the stack what the model does."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprof.huggingface.adapters.switch import SwitchExperts
from moeprof.huggingface.buffers import FromShards
from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.layer import ExpertsLayer
from moeprof.huggingface.loading import load_resident
from moeprof.huggingface.separate import altered
from moeprof.huggingface.sites import find_sites
from moeprof.instrument.memory import key_of
from moeprof.moe.kernels import KERNELS
from moeprof.moe.layer import static_tensors, use_variant
from moeprof.records.errors import UsageError
from moeprof.records.recipe.variant import Variant
from tests.huggingface.buffered import OWN_RESIDENT, buffers, first, in_slots, layers_of, relative, under
from tests.huggingface.forward import captured, forward
from tests.huggingface.small_models import NUM_EXPERTS, saved, small_model

WHOLE = 1.0
EVERY_VARIANT = [
    *(Variant("dynamic", kernel=name) for name in KERNELS if name != "bmm"),
    Variant("static", kernel="bmm"),
    Variant("tutel"),
    Variant("tutel-dropless"),
    in_slots(dispatch="dynamic"),
]
EXPERT_BYTES = 2 * 32 * 48 * 4
LAYERS = 6
TOKENS = 24


def switch(**changes: object) -> PreTrainedModel:
    return small_model("switch_transformers", **changes)


def private_bytes(model: nn.Module) -> int:
    """The bytes of all parameters, memory that several share counted once."""
    return sum({key_of(one): one.untyped_storage().nbytes() for one in model.parameters()}.values())


def all_buffered(layers: nn.ModuleList) -> list[ExpertsLayer]:
    return [layer for layer in layers if isinstance(layer, ExpertsLayer)]


@pytest.mark.parametrize("capacity", [64, 2])
def test_outputs_and_dropped_tokens_are_the_models_own(capacity: int) -> None:
    """With capacity 2 the model drops tokens of 24 in every layer; the same ones take no row in any variant."""
    model = switch(expert_capacity=capacity)
    expected, calls = captured(model)
    routed = [int((call.kept_TK == 0).sum()) for call in calls]
    assert all(rows == TOKENS if capacity == 64 else rows < TOKENS for rows in routed)
    layers = layers_of(model, WHOLE)
    with buffers(layers) as opened:
        for variant in (in_slots(), in_slots(dispatch="dynamic")):
            opened.fit(variant)
        assert torch.equal(under(in_slots(), model, layers), expected)
        assert [layer.num_rows for layer in all_buffered(layers)] == routed
        for variant in EVERY_VARIANT:
            found = under(variant, model, layers)
            assert relative(found, expected) <= 1e-5, variant
            padded = variant.dispatch_entry.padded
            assert padded or [layer.num_rows for layer in all_buffered(layers)] == routed
    assert torch.equal(forward(model), expected)


def test_the_stack_is_the_only_copy_of_the_weights() -> None:
    model = switch()
    expected, before = forward(model), private_bytes(model)
    layer = first(layers_of(model))
    assert private_bytes(model) == before
    assert list(layer.weights) == ["wi.weight", "wo.weight"]
    assert layer.weights["wi.weight"].shape == (NUM_EXPERTS, 48, 32)
    for number, one in enumerate(layer.experts.children()):
        assert one.get_parameter("wo.weight").data_ptr() == layer.weights["wo.weight"][number].data_ptr()
    assert torch.equal(forward(model), expected)


def test_slots_take_the_place_of_the_modules_parameters() -> None:
    """Six layers of eight experts of 12,288 bytes, three whole pages, against three slots."""
    model = switch()
    whole = nn.ModuleList([model, layers_of(model)])
    with buffers(whole[1]) as opened:
        opened.fit(in_slots())
        found, resident = (static_tensors(whole, variant) for variant in (in_slots(), OWN_RESIDENT))
    weights, all_weights = (
        {key_of(one): one.untyped_storage().nbytes() for one in each["weights"]} for each in (found, resident)
    )
    assert sum(tensor.nbytes for tensor in found["expert_slots"]) == LAYERS * 3 * EXPERT_BYTES
    assert sum(all_weights.values()) - sum(weights.values()) == LAYERS * NUM_EXPERTS * EXPERT_BYTES


def test_experts_that_were_never_loaded_are_read_from_the_shards(tmp_path: Path) -> None:
    expected = forward(whole := switch(expert_capacity=2))
    model, shards = load_resident(open_folder(saved(tmp_path / "model", whole, max_shard_size="50KB")))
    assert all(parameter.is_meta for site in find_sites(model) for parameter in site.experts.parameters())
    layers = layers_of(model)
    source = FromShards(layers, shards)
    with buffers(layers, source) as opened:
        opened.fit(in_slots())
        assert torch.equal(under(in_slots(), model, layers), expected)
    assert not source.why_file
    assert all(stack.is_meta for layer in layers for stack in layer.weights.values())


def test_padding_takes_no_row_beside_dropped_tokens() -> None:
    """Of six rows the second is padding, and the expert of the fourth was full."""
    layer, x_TD = first(layers_of(switch())), torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    mask_T1E = nn.functional.one_hot(torch.tensor([3, 3, 1, 1, 7, 3]), NUM_EXPERTS)[:, None]
    mask_T1E[3] = 0
    expected_TD = layer.experts(x_TD, mask_T1E, torch.linspace(0.2, 0.9, 6)[:, None])
    layer.real_T = torch.arange(6) != 1
    layer.use(Variant("dynamic"))
    found_TD = layer.experts(x_TD, mask_T1E, torch.linspace(0.2, 0.9, 6)[:, None])
    layer.use(None)
    assert layer.num_rows == 4
    assert not found_TD[[1, 3]].any()
    assert relative(found_TD[layer.real_T], expected_TD[layer.real_T]) <= 1e-5


def test_half_precision_differs_by_its_rounding() -> None:
    """bfloat16 has 8 bits; each of two products and the weight rounds once, and the model's sum adds nothing to it."""
    model = switch().to(torch.bfloat16)
    expected, layers = forward(model), layers_of(model)
    found = under(Variant("dynamic", kernel="loop"), model, layers)
    assert found.dtype == expected.dtype
    assert relative(found.float(), expected.float()) <= 8 * 2**-8


class Scaled(nn.Module):
    """An expert that computes with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.wi = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, rows: Tensor) -> Tensor:
        return self.wi(rows) * self.scale


def stack_of(*experts: nn.Module) -> SwitchExperts:
    return SwitchExperts(nn.ModuleDict({f"expert_{number}": one for number, one in enumerate(experts)}), len(experts))


def test_what_kernels_cannot_take_the_place_of_is_named() -> None:
    stack = stack_of(Scaled(), Scaled())
    assert not stack.refusal()
    assert stack.ours_refusal() == "the experts of ModuleDict have tensors outside of linear layers: scale"


def test_experts_that_differ_cannot_be_stacked() -> None:
    assert "differ in their tensors" in stack_of(nn.Linear(4, 4), nn.Linear(4, 5)).refusal()
    assert "differ in their tensors" in stack_of(nn.Linear(4, 4), nn.Linear(4, 4).double()).refusal()
    assert stack_of(nn.BatchNorm1d(4), nn.BatchNorm1d(4)).refusal() == "the experts of ModuleDict have buffers"


def test_a_refusal_names_the_layer() -> None:
    model = switch()
    (site, *_) = find_sites(model)
    site.experts.get_submodule("expert_3").wi = nn.Linear(32, 7, bias=False)
    with pytest.raises(
        UsageError, match=r"layer enc.1 \(encoder.block.1.layer.1.mlp.experts\): the experts of Switch.* differ"
    ):
        layers_of(model)


def test_a_layer_that_the_variant_leaves_alone_computes_what_its_class_does() -> None:
    """As when the pass `outputs` repeats an encoder's layer under a variant whose slots are those of the decoder."""
    model = switch(expert_capacity=2)
    layers, calls = layers_of(model), list[tuple[tuple[Tensor, ...], Tensor]]()
    layer = first(layers)
    handle = layer.experts.register_forward_hook(lambda _, args, y_TD: calls.append((args, y_TD)))
    use_variant(layers, OWN_RESIDENT)
    forward(model)
    handle.remove()
    ((args, y_TD),) = calls
    assert torch.equal(layer.forward(*args), y_TD)
    use_variant(layers, None)


def test_an_altered_module_shares_everything_else() -> None:
    whole = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 1))
    changed = altered(whole, {"0.0.weight": torch.zeros(2, 2), "1": nn.Identity()})
    rows = torch.ones(1, 2)
    assert torch.equal(changed(rows), whole[0][0].bias.relu()[None])
    assert isinstance(whole[1], nn.Linear)
    assert whole[0][0].weight.any()
    assert changed.get_parameter("0.0.bias") is whole[0][0].bias
