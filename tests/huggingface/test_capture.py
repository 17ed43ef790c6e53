"""What is routed to experts is read without changing the model."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moeprof.huggingface.capture import Call, Capture
from moeprof.huggingface.sites import find_sites
from moeprof.huggingface.tally import tally
from moeprof.records.errors import MoeprofError
from tests.huggingface.forward import TOKENS_BL, captured, forward, num_hooks
from tests.huggingface.small_models import NUM_EXPERTS, PAD, TOP_K, small_model


def test_choices_are_the_largest_router_probabilities_sorted_by_weight() -> None:
    """Mixtral: softmax over the two largest logits."""
    model = small_model("mixtral")
    _, calls = captured(model)
    logits_TE = model(input_ids=TOKENS_BL, output_router_logits=True).router_logits
    for call, layer_TE in zip(calls, logits_TE, strict=True):
        probs_TK, experts_TK = layer_TE.softmax(dim=1).topk(TOP_K, dim=1)
        assert torch.equal(call.experts_TK, experts_TK)
        torch.testing.assert_close(call.weights_TK, probs_TK / probs_TK.sum(dim=1, keepdim=True))


def test_equal_weights_are_ordered_by_expert() -> None:
    model = small_model("mixtral")
    (site, *_) = find_sites(model)
    call = Call(site, (torch.tensor([[7, 2], [1, 5]]), torch.tensor([[0.5, 0.5], [0.25, 0.75]])), "eager", None)
    assert call.experts_TK.tolist() == [[2, 7], [5, 1]]
    assert call.weights_TK.tolist() == [[0.5, 0.5], [0.75, 0.25]]


def test_weights_are_those_that_the_experts_receive() -> None:
    """DeepSeek-V3 scales weights that sum to 1 by 2.5; they are no probabilities."""
    _, calls = captured(small_model("deepseek_v3"))
    for call in calls:
        torch.testing.assert_close(call.weights_TK.sum(dim=1), torch.full((TOKENS_BL.numel(),), 2.5))


def test_a_call_keeps_its_routing_if_the_model_writes_over_it() -> None:
    model = small_model("mixtral")
    (site, *_) = find_sites(model)
    hidden_TD = torch.zeros(1, 32)
    experts_TK, weights_TK = torch.tensor([[3, 6]]), torch.tensor([[0.75, 0.25]])
    calls: list[Call] = []
    with torch.inference_mode(), Capture([site], calls.append):
        site.module(hidden_TD, top_k_index=experts_TK, top_k_weights=weights_TK)
        experts_TK.zero_()
    assert calls[0].experts_TK.tolist() == [[3, 6]]


@pytest.mark.parametrize("backend", ["eager", "grouped_mm", "batched_mm"])
def test_the_backend_stays_and_is_recorded_for_each_call(backend: str) -> None:
    model = small_model("qwen3_moe")
    model.set_experts_implementation(backend)
    plain = forward(model)
    output, calls = captured(model)
    assert torch.equal(output, plain)
    assert {call.backend for call in calls} == {backend}
    assert model.get_experts_implementation() == {"": backend}


def test_decoding_on_a_gpu_is_seen_to_change_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model only says that it is on a GPU: transformers decides by that."""
    model = small_model("qwen3_moe")
    monkeypatch.setattr(type(model), "device", SimpleNamespace(type="cuda"))
    calls: list[Call] = []
    with Capture(find_sites(model), calls.append):
        forward(model)
        with model._optimize_model_for_decode():
            forward(model, TOKENS_BL[:, :1])
        forward(model)
    layers = len(find_sites(model))
    assert [call.backend for call in calls[::layers]] == ["grouped_mm", "batched_mm", "grouped_mm"]


def test_padding_of_a_left_padded_batch_is_counted_apart() -> None:
    """Two prompts of 6 and 2 tokens: 12 rows reach the experts, of which 4 are padding; then two rows per token."""
    model = small_model("mixtral")
    tokens_BL = torch.tensor([[5, 6, 7, 8, 9, 10], [PAD, PAD, PAD, PAD, 11, 12]])
    mask_BL = torch.tensor([[1] * 6, [0] * 4 + [1] * 2])
    calls: list[Call] = []
    plain = model.generate(tokens_BL, attention_mask=mask_BL, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    with Capture(find_sites(model), calls.append):
        seen = model.generate(tokens_BL, attention_mask=mask_BL, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert torch.equal(seen, plain)
    first = [call for call in calls if call.site.layer == "0"]
    assert [len(call.experts_TK) for call in first] == [12, 2, 2, 2, 2]
    counts = tally(first[0], mask_BL.flatten().bool())
    assert (counts.routed, counts.padding, sum(counts)) == (8 * TOP_K, 4 * TOP_K, 12 * TOP_K)


def test_a_layer_without_a_call_is_an_error_that_names_the_causes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As mxfp4 kernels do: the block calls another method of the experts than their forward pass."""
    model = small_model("gpt_oss")
    block = model.get_submodule("model.layers.2.mlp")
    monkeypatch.setattr(block, "forward", lambda hidden, *_: (torch.zeros_like(hidden), None))
    with (
        pytest.raises(MoeprofError, match=r"2 \(model\.layers\.2\.mlp\.experts\)\n.*compiled.*mxfp4.*hub"),
        Capture(find_sites(model), ignore),
    ):
        forward(model)


@pytest.mark.slow
def test_a_compiled_model_is_an_error_and_no_empty_trace() -> None:
    """Compiled code does not look at hooks that came later."""
    model = small_model("mixtral", num_hidden_layers=1)
    compiled = torch.compile(model, backend="eager")
    forward(compiled)
    with pytest.raises(MoeprofError, match="made no call that a hook can see: 0 "), Capture(find_sites(model), ignore):
        forward(compiled)


def ignore(call: Call) -> None:
    """Forgets the call."""


def out_of_memory(call: Call) -> None:
    raise MemoryError


def interrupted(call: Call) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("see", "error"), [(out_of_memory, MemoryError), (interrupted, KeyboardInterrupt)])
def test_no_hook_is_left_after(see: Callable[[Call], Any], error: type[BaseException]) -> None:
    model = small_model("switch_transformers")
    sites = find_sites(model)
    with pytest.raises(error), Capture(sites, see, scores=True):
        forward(model)
    assert num_hooks(model) == 0


def test_no_hook_is_left_if_the_last_cannot_be_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("mixtral")
    sites = find_sites(model)

    def refuse(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sites[-1].module, "register_forward_pre_hook", refuse)
    with pytest.raises(KeyboardInterrupt):
        Capture(sites, ignore).__enter__()
    assert num_hooks(model) == 0


def test_gradients_are_not_kept_alive_by_calls() -> None:
    model = small_model("mixtral")
    calls: list[Call] = []
    with Capture(find_sites(model), calls.append):
        loss = model(input_ids=TOKENS_BL, labels=TOKENS_BL).loss
    loss.backward()
    assert not any(call.weights_TK.requires_grad for call in calls)
    assert {call.site.num_experts for call in calls} == {NUM_EXPERTS}
