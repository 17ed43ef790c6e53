"""A model with its experts in slots computes what it does without, whatever its backend, and misses what a replay says."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from moeprof.analysis.caching.accesses import stream_of
from moeprof.analysis.caching.miss_counts import hits
from moeprof.huggingface.buffers import FromShards, from_parameters
from moeprof.huggingface.capture import Call, Capture
from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.layer import experts_layers
from moeprof.huggingface.loading import load_resident
from moeprof.huggingface.sites import find_sites
from moeprof.instrument.probe import observed_by
from moeprof.instrument.step import Step
from moeprof.instrument.visits import ExpertLoadRecorder
from moeprof.moe.buffers import buffered_stores, kept
from moeprof.moe.layer import static_tensors, use_variant
from moeprof.records.errors import UsageError
from moeprof.store.resident import ExpertWeights
from tests.analysis.traces import Row, trace_of
from tests.huggingface.architectures import build
from tests.huggingface.buffered import (
    OWN_RESIDENT,
    SLOTS,
    buffers,
    first,
    in_slots,
    layers_of,
    relative,
    under,
)
from tests.huggingface.forward import forward
from tests.huggingface.small_models import NUM_EXPERTS, saved, small_model

QUICK = ["mixtral", "gpt_oss", "deepseek_v3", "qwen3_moe"]
SLOW = [
    "afmoe",
    "axk1",
    "beam",
    "cohere2_moe",
    "deepseek_v2",
    "deepseek_v4",
    "ernie4_5_moe",
    "exaone_moe",
    "flex_olmo",
    "glm4_moe",
]
SLOW += ["granitemoe", "hy_v3", "hy_v4", "jamba", "minimax_m2", "mimo_v2_flash", "nemotron_h", "olmoe", "phimoe", "qwen3_next"]
ARCHITECTURES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_have_the_bits_of_the_whole_model_if_two_experts_are_used(architecture: str) -> None:
    """Twice, from cold slots and from warm ones; and with an expert of the tier swapped for another they have not."""
    model = small_model(architecture)
    expected, layers = forward(model), layers_of(model)
    with buffers(layers) as opened:
        opened.fit(in_slots())
        for _ in range(2):
            assert torch.equal(under(in_slots(), model, layers), expected)
    with buffers(layers, swapped(layers)) as opened:
        opened.fit(in_slots())
        assert relative(under(in_slots(), model, layers), expected) > 1e-3
    assert torch.equal(forward(model), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", ["aria", "gemma4", "minimax_m3_vl", "muse_spark", "inkling2", "step3p7", "ernie4_5_vl_moe"]
)
def test_experts_inside_other_models_and_of_rare_forms_have_the_same_bits(architecture: str) -> None:
    """Transposed, clamped, with a norm behind, a gate that is a module, not decorated, of two widths in one layer."""
    model = build(architecture)
    expected, layers = forward(model), layers_of(model)
    with buffers(layers) as opened:
        opened.fit(in_slots())
        assert torch.equal(under(in_slots(), model, layers), expected)


@pytest.mark.slow
def test_a_class_whose_default_loop_has_no_room_is_refused_and_runs_under_another_backend() -> None:
    model = build("openai_privacy_filter")
    with buffers(layers_of(model)) as opened, pytest.raises(UsageError, match="loop of OpenAIPrivacyFilterExperts fails"):
        opened.fit(in_slots())
    model.set_experts_implementation("grouped_mm")
    expected, layers = forward(model), layers_of(model)
    with buffers(layers) as opened:
        opened.fit(in_slots())
        assert torch.equal(under(in_slots(), model, layers), expected)


def swapped(layers: nn.ModuleList) -> "object":
    """A source that gives each expert the weights of the next one."""
    right = from_parameters(layers)

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        right(layer, (expert + 1) % NUM_EXPERTS, into)

    return fill


@pytest.mark.parametrize("backend", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("slots", [2, 8])
def test_the_backend_stays_that_of_the_model(backend: str, slots: int) -> None:
    model = small_model("mixtral")
    model.set_experts_implementation(backend)
    expected, layers, seen = forward(model), layers_of(model), list[str]()
    with buffers(layers) as opened, Capture(find_sites(model), lambda call: seen.append(call.backend)):
        opened.fit(in_slots(slots))
        assert torch.equal(under(in_slots(slots), model, layers), expected)
    assert seen == [backend] * 4


@pytest.mark.parametrize("architecture", ["qwen3_moe", pytest.param("deepseek_v3", marks=pytest.mark.slow)])
def test_outputs_are_close_if_more_experts_are_used_than_there_are_slots(architecture: str) -> None:
    model = small_model(architecture, num_experts_per_tok=4)
    expected, layers = forward(model), layers_of(model)
    with buffers(layers) as opened:
        opened.fit(in_slots())
        found = under(in_slots(), model, layers)
    assert relative(found, expected) <= 1e-5
    assert torch.equal(found.argmax(dim=-1), expected.argmax(dim=-1))


@pytest.mark.parametrize("eviction", ["inactive-first+lifo", "lru", "fifo", "lfu"])
@pytest.mark.parametrize("slots", [2, 5])
def test_hits_and_misses_are_those_of_a_replay_of_the_trace(eviction: str, slots: int) -> None:
    """Five steps of different texts; the trace is the hook's, and the replay knows nothing of slots."""
    model, calls = small_model("mixtral"), list[Call]()
    layers, recorder, variant = layers_of(model), ExpertLoadRecorder(), in_slots(slots, eviction)
    with buffers(layers) as opened, Capture(find_sites(model), calls.append):
        opened.fit(variant)
        use_variant(layers, variant)
        play(model, layers, recorder, 5)
        use_variant(layers, None)
    accesses = stream_of({"score": [trace(calls)]}, list("0123"), as_logged=False)
    uses = [(one.layer, one.visit) for one in recorder.visits]
    for index, layer in enumerate("0123"):
        here = accesses.accesses(accesses.layer_N == index)
        found = [use for name, visit in uses if name == layer for use in visit.uses]
        assert [use.expert for use in found] == (accesses.expert_N[accesses.layer_N == index]).tolist()
        assert [use.hit for use in found] == np.asarray(hits(here, eviction, slots)).tolist()
    assert 0 < sum(use.hit for _, visit in uses for use in visit.uses) < len(accesses)


def play(model: nn.Module, layers: nn.ModuleList, recorder: ExpertLoadRecorder, steps: int) -> None:
    """Steps under an observer, to which each layer says its step when it has ended."""
    step = SimpleNamespace(index=0)

    def ended(layer: str) -> object:
        now = Step(None, index=step.index)
        return lambda *_: recorder.routed(layer, now, *[torch.empty(0)] * 3, 0)

    for index in range(steps):
        step.index = index
        handles = [layer.experts.register_forward_hook(ended(layer.name)) for layer in layers]
        tokens_BL = torch.randint(3, 250, (1, 3), generator=torch.Generator().manual_seed(index))
        with observed_by(recorder), torch.no_grad():
            model(input_ids=tokens_BL, use_cache=False)
        for handle in handles:
            handle.remove()


def trace(calls: list[Call]) -> object:
    """The choices of all calls as a routing trace; each layer is called once in a step."""
    rows = [
        Row(number // 4, expert, slot, layer=call.site.layer, sequence=token)
        for number, call in enumerate(calls)
        for token, chosen in enumerate(call.experts_TK.tolist())
        for slot, expert in enumerate(chosen)
    ]
    return trace_of(rows, num_experts=NUM_EXPERTS, layers=tuple("0123"))


def test_loads_and_stalls_are_seen_by_the_instrument_of_the_passes() -> None:
    """Every miss moves one entry: 3 x 32 x 48 numbers of 4 bytes are 18,432, five pages."""
    model, recorder = small_model("mixtral"), ExpertLoadRecorder()
    layers = layers_of(model)
    with buffers(layers) as opened:
        opened.fit(in_slots())
        use_variant(layers, in_slots())
        with kept(layers):
            play(model, layers, ExpertLoadRecorder(), 1)
        play(model, layers, recorder, 2)
        assert [store.num_slots for store in buffered_stores(layers)] == [SLOTS] * 4
        use_variant(layers, None)
    assert [(one.layer, one.step) for one in recorder.visits] == [(layer, step) for step in (0, 1) for layer in "0123"]
    for one in recorder.visits:
        assert {use.num_bytes for use in one.visit.uses if not use.hit} <= {5 * 4096}
        assert 0 <= one.visit.stall_ns <= one.visit.span_ns
    assert not any(use.hit for one in recorder.visits[:4] for use in one.visit.uses)


def test_resident_and_buffered_rounds_alternate_on_one_copy_of_the_weights() -> None:
    model = small_model("mixtral")
    layers, expected = layers_of(model), forward(model)
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    with buffers(layers) as opened:
        opened.fit(in_slots())
        for variant in (OWN_RESIDENT, in_slots(), OWN_RESIDENT, in_slots()):
            assert torch.equal(under(variant, model, layers), expected)
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == before
    assert not any("forward" in vars(layer.experts) for layer in layers)
    assert all(layer.experts.num_experts == NUM_EXPERTS for layer in layers)


def test_slots_take_the_place_of_experts_in_what_a_variant_keeps_on_the_device() -> None:
    """Four layers of eight experts of 18,432 bytes, against three slots."""
    model = small_model("mixtral")
    whole = nn.ModuleList([model, layers_of(model)])
    with buffers(whole[1]) as opened:
        opened.fit(in_slots())
        found, resident = (static_tensors(whole, variant) for variant in (in_slots(), OWN_RESIDENT))
    size = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in found.items()}
    assert size["expert_slots"] == 4 * 3 * 18_432
    assert sum(tensor.nbytes for tensor in resident["weights"]) - size["weights"] == 4 * 8 * 18_432


@pytest.mark.parametrize("architecture", ["mixtral", "gpt_oss", pytest.param("deepseek_v3", marks=pytest.mark.slow)])
def test_experts_that_were_never_loaded_are_read_from_the_shards(architecture: str, tmp_path: Path) -> None:
    expected = forward(whole := small_model(architecture))
    model, shards = load_resident(open_folder(saved(tmp_path / "model", whole, max_shard_size="50KB")))
    layers = layers_of(model)
    source = FromShards(layers, shards)
    with buffers(layers, source) as opened:
        opened.fit(in_slots())
        assert torch.equal(under(in_slots(), model, layers), expected)
    assert not source.why_file
    assert all(whole.is_meta for layer in layers for whole in layer.weights.values())


def test_experts_that_only_transformers_can_make_are_written_to_an_expert_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each whole parameter is made once, while the file is written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = forward(whole := small_model("mixtral"))
    model, shards = load_resident(open_folder(saved(tmp_path / "model", whole)))
    layers, made = layers_of(model), list[str]()
    why = "its operation is another one"
    parameters = dict(whole.named_parameters())
    monkeypatch.setattr(shards, "why_not", lambda path: why if path.endswith("gate_up_proj") else "")
    monkeypatch.setattr(shards, "whole", lambda path: made.append(path) or parameters[path].detach())
    source = FromShards(layers, shards)
    with buffers(layers, source, file_hash="a hash") as opened:
        opened.fit(in_slots())
        assert torch.equal(under(in_slots(), model, layers), expected)
    assert source.why_file == why
    assert made == [f"model.layers.{index}.mlp.experts.gate_up_proj" for index in range(4)]


UNDER_A_LIMIT = """
import resource, sys, torch
from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.buffers import FromShards
from moeprof.huggingface.loading import load_model, load_resident
from tests.huggingface.buffered import buffers, forward, in_slots, layers_of, under
from tests.huggingface.small_models import small_model

folder, out, left_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
forward(small_model("mixtral"))  # what is imported only when it is used
(used,) = [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData")]
resource.setrlimit(resource.RLIMIT_DATA, (used + left_bytes, used + left_bytes))
try:
    load_model(open_folder(folder))
    sys.exit("the limit does not limit")
except (MemoryError, RuntimeError):
    pass
model, shards = load_resident(open_folder(folder))
layers = layers_of(model)
with buffers(layers, FromShards(layers, shards)) as opened:
    opened.fit(in_slots())
    torch.save(under(in_slots(), model, layers), out)
"""


@pytest.mark.slow
def test_a_model_with_four_times_the_experts_that_fit_in_memory_has_the_same_outputs(tmp_path: Path) -> None:
    """Four layers of 32 experts, 132 MiB in all; the process may take 33 MiB more than when it has imported all modules."""
    model = small_model("mixtral", hidden_size=256, intermediate_size=352, num_local_experts=32)
    experts_bytes = sum(whole.nbytes for layer in layers_of(model) for whole in layer.weights.values())
    folder = saved(tmp_path / "model", model, max_shard_size="20MB")
    command = [sys.executable, "-c", UNDER_A_LIMIT, str(folder), str(tmp_path / "out"), str(experts_bytes // 4)]
    subprocess.run(command, check=True, timeout=300)
    assert torch.equal(torch.load(tmp_path / "out"), forward(model))


def test_an_expert_file_holds_experts_of_different_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two models in one, whose experts differ in width and number of tensors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    models = [small_model("mixtral", hidden_size=64, intermediate_size=72), small_model("gpt_oss")]
    expected = [forward(model) for model in models]
    layers = experts_layers([site for model in models for site in find_sites(model)])
    for index, layer in enumerate(layers):
        layer.name = f"{index}"
    with buffers(layers, file_hash="a hash") as opened:
        opened.fit(in_slots())
        assert len({layout.entry_bytes for layout in opened.layouts.values()}) == 2
        for model, outputs in zip(models, expected, strict=True):
            assert torch.equal(under(in_slots(), model, layers), outputs)


def test_padding_uses_no_slot() -> None:
    """The first row is padding, and chooses experts that the other does not."""
    model = small_model("mixtral")
    layers = layers_of(model)
    layer, recorder = first(layers), ExpertLoadRecorder()
    x_TD, experts_TK, weights_TK = torch.randn(2, 32), torch.tensor([[0, 1], [2, 5]]), torch.full((2, 2), 0.5)
    with buffers(layers) as opened, observed_by(recorder):
        opened.fit(in_slots())
        layer.use(in_slots())
        layer.real_T = torch.tensor([False, True])
        found_TD = layer.experts(x_TD, experts_TK, weights_TK)
        layer.use(None)
    assert recorder.last is not None
    assert [use.expert for use in recorder.last.uses] == [2, 5]
    assert not found_TD[0].any()
    assert torch.equal(found_TD[1], layer.experts(x_TD, experts_TK, weights_TK)[1])


def test_a_call_without_tokens_loads_nothing() -> None:
    layers = layers_of(small_model("mixtral"))
    with buffers(layers) as opened:
        opened.fit(in_slots())
        layer = first(layers)
        layer.use(in_slots())
        nothing = layer.experts(torch.empty(0, 32), torch.empty(0, 2, dtype=torch.int64), torch.empty(0, 2))
        layer.use(None)
    assert nothing.shape == (0, 32)


@pytest.mark.parametrize("architecture", ["gpt_oss", pytest.param("nemotron_h", marks=pytest.mark.slow)])
def test_a_loop_without_room_for_other_experts_is_refused(architecture: str) -> None:
    model = small_model(architecture)
    model.set_experts_implementation("eager")
    layers = layers_of(model)
    with buffers(layers) as opened, pytest.raises(UsageError, match=r"fails for experts that are in no slot\n.*grouped_mm"):
        opened.fit(in_slots())


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("llama4_text", "Llama4TextExperts is not called with"),
        ("longcat_flash", "experts without weights"),
        ("jetmoe", "is not called with"),
    ],
)
def test_experts_that_are_called_in_another_way_are_refused(architecture: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        layers_of(small_model(architecture))
    assert caught.value.remedy == "Leave out the optimizations; the model can be characterized."


def test_experts_whose_forward_function_is_replaced_are_refused() -> None:
    model = small_model("mixtral")
    (site, *_) = find_sites(model)
    vars(site.experts)["forward"] = site.experts.forward
    with pytest.raises(UsageError, match=r"layer 0 .*: the forward function of MixtralExperts is replaced already"):
        layers_of(model)
