"""Models come from folders with the weights, buffers and outputs that transformers gives them, without their experts in bounded memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.loading import Options, estimate, load_model, load_resident
from moeprof.huggingface.shards import ExpertShards, expert_parameters
from moeprof.records.errors import UsageError
from moeprof.store.checkpoint_folder import WEIGHTS
from tests.huggingface.architectures import build
from tests.huggingface.forward import forward
from tests.huggingface.small_models import saved, small_model
from tests.huggingface.test_folder import change
from tests.huggingface.test_shards import MORE, QUICK
from tests.store.test_tensor_files import bytes_by_system_calls

HEADLESS = {
    "deepseek_ocr2",
    "diffusion_gemma",
    "ernie4_5_vl_moe",
    "glm4v_moe",
    "glm5_next",
    "hy_v4_vl",
    "inkling",
    "mistral4",
    "muse_spark",
    "openai_privacy_filter",
    "qwen3_omni_moe",
    "qwen4_exp",
}
"""Architectures whose small models have no output probabilities."""

OTHERS = sorted({*QUICK, *MORE, "switch_transformers"} - HEADLESS - {"mixtral"})


def with_experts(model: PreTrainedModel, shards: ExpertShards) -> PreTrainedModel:
    """The model with its experts on the meta device replaced by what is read of the shards."""
    for name in expert_parameters(model):
        assert model.get_parameter(name).is_meta
        whole = torch.empty_like(model.get_parameter(name), device="cpu")
        for expert, slab in enumerate(whole):
            shards.read(name, expert, slab)
        module, _, parameter = name.rpartition(".")
        setattr(model.get_submodule(module), parameter, nn.Parameter(whole))
    return model


def named(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """All parameters and buffers, those too that no checkpoint holds."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def assert_same(found: PreTrainedModel, wanted: PreTrainedModel) -> None:
    """Weights to the bit; outputs up to rounding, because products of equal weights at other addresses round differently on some CPUs."""
    assert not found.training
    assert named(found).keys() == named(wanted).keys()
    for name, tensor in named(wanted).items():
        assert named(found)[name].dtype == tensor.dtype, name
        assert torch.equal(named(found)[name], tensor), name
    torch.testing.assert_close(forward(found), forward(wanted))


@pytest.mark.parametrize("architecture", ["mixtral", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_model_whose_experts_are_read_later_equals_one_that_is_loaded_at_once(architecture: str, tmp_path: Path) -> None:
    model = build(architecture)
    folder = open_folder(str(saved(tmp_path, model, tokenizer=False, max_shard_size="60KB")))
    whole = load_model(folder)
    assert_same(whole, model)
    assert_same(with_experts(*load_resident(folder)), whole)


def test_weights_are_converted_but_for_those_that_a_class_keeps_in_float32(tmp_path: Path) -> None:
    folder, options = open_folder(str(saved(tmp_path, small_model("gpt_oss"), tokenizer=False))), Options(dtype=torch.float16)
    wanted, found = load_model(folder, options), with_experts(*load_resident(folder, options))
    assert {each.dtype for each in wanted.parameters()} == {torch.float16, torch.float32}
    assert {name: each.dtype for name, each in named(found).items()} == {
        name: each.dtype for name, each in named(wanted).items()
    }
    assert all(torch.equal(named(found)[name], each) for name, each in named(wanted).items())


def test_the_type_of_the_weights_is_that_of_the_checkpoint_unless_it_is_chosen(tmp_path: Path) -> None:
    folder = saved(tmp_path, small_model("mixtral").bfloat16(), tokenizer=False)
    assert load_model(open_folder(str(folder))).dtype == torch.bfloat16
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "dtype"}))
    assert load_resident(open_folder(str(folder)))[0].dtype == torch.bfloat16
    assert load_model(open_folder(str(folder)), Options(dtype=torch.float32)).dtype == torch.float32


def test_weights_that_share_their_memory_still_do(tmp_path: Path) -> None:
    folder = open_folder(str(saved(tmp_path, small_model("mixtral", tie_word_embeddings=True), tokenizer=False)))
    assert "lm_head.weight" not in folder.tensors
    whole, (resident, shards) = load_model(folder), load_resident(folder)
    assert resident.lm_head.weight is resident.model.embed_tokens.weight
    assert_same(with_experts(resident, shards), whole)


def test_the_generation_settings_of_the_folder_are_kept(tmp_path: Path) -> None:
    model = small_model("mixtral")
    model.generation_config.max_new_tokens = 7
    folder = open_folder(str(saved(tmp_path, model, tokenizer=False)))
    assert load_model(folder).generation_config.max_new_tokens == 7
    assert load_resident(folder)[0].generation_config.max_new_tokens == 7


def test_the_backend_of_experts_is_the_chosen_one(tmp_path: Path) -> None:
    folder = open_folder(str(saved(tmp_path, small_model("mixtral"), tokenizer=False)))
    default = load_model(folder).get_experts_implementation()[""]
    assert load_resident(folder)[0].get_experts_implementation()[""] == default == "grouped_mm"
    for backend in ("eager", "batched_mm"):
        assert load_model(folder, Options(experts_backend=backend)).get_experts_implementation()[""] == backend
        assert load_resident(folder, Options(experts_backend=backend))[0].get_experts_implementation()[""] == backend


def test_a_device_map_gives_the_outputs_of_a_model_on_one_device(tmp_path: Path) -> None:
    folder, placed = open_folder(str(saved(tmp_path / "model", small_model("qwen3_moe")))), Options(device_map="auto")
    assert torch.equal(forward(load_model(folder, placed)), forward(load_model(folder)))


@pytest.mark.parametrize("part", [1 / 2, 9 / 10])
def test_a_device_map_that_would_leave_layers_on_disk_is_refused(
    part: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(str(saved(tmp_path / "model", model := small_model("qwen3_moe"))))
    memory = int(part * sum(parameter.nbytes for parameter in model.parameters()))
    monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda *_: {"cpu": memory})
    with pytest.raises(UsageError, match="larger than the memory of all devices") as caught:
        load_model(folder, Options(device_map="auto"))
    assert "--expert-buffering" in caught.value.remedy


def test_a_device_map_needs_a_run_on_the_gpus_that_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(str(saved(tmp_path / "model", small_model("qwen3_moe"))))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match="places it on the GPUs, and the run is on the cpu") as caught:
        load_model(folder, Options(device_map="auto"))
    assert caught.value.remedy == "Add --device cuda."


def test_a_class_without_a_choice_of_backends_refuses_one(tmp_path: Path) -> None:
    folder = open_folder(str(saved(tmp_path, small_model("switch_transformers"), tokenizer=False)))
    assert load_model(folder, Options(experts_backend="eager")).get_experts_implementation()[""] == "eager"
    with pytest.raises(UsageError, match="cannot compute its experts with batched_mm: its class has one way of its own"):
        load_model(folder, Options(experts_backend="batched_mm"))


def test_nothing_of_the_experts_is_read_before_they_are_wanted(tmp_path: Path) -> None:
    folder = open_folder(str(saved(tmp_path, small_model("mixtral", intermediate_size=480), tokenizer=False)))
    load_resident(folder)  # imports what it needs
    size, before = estimate(folder), bytes_by_system_calls()
    load_resident(folder)
    assert size.resident_bytes < bytes_by_system_calls() - before < size.expert_bytes / 10


def test_the_estimate_is_what_the_model_takes(tmp_path: Path) -> None:
    model = small_model("deepseek_v3").bfloat16()
    folder = open_folder(str(saved(tmp_path, model, tokenizer=False)))
    loaded = load_model(folder)
    experts = sum(loaded.get_parameter(name).nbytes for name in expert_parameters(loaded))
    found = estimate(folder)
    assert found.expert_bytes == experts == 3 * 8 * 3 * 32 * 16 * 2
    for one in (loaded, load_resident(folder)[0]):
        assert found.resident_bytes + experts == sum(each.nbytes for each in [*one.parameters(), *one.buffers()])
    assert found.stored_bytes == sum(each.nbytes for each in load_file(folder.path / WEIGHTS).values())
    assert estimate(folder, Options(dtype=torch.float32)).expert_bytes == 2 * experts


def test_code_of_a_folder_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    saved(tmp_path, small_model("mixtral"), tokenizer=False)
    (tmp_path / "own.py").write_text("raise RuntimeError('code of the folder ran')")
    change(
        tmp_path / "config.json",
        model_type="own_moe",
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    folder = open_folder(str(tmp_path))
    with pytest.raises(UsageError) as caught:
        load_model(folder)
    assert "own_moe needs code from the folder" in caught.value.what
    assert "--trust-remote-code" in caught.value.remedy
    with pytest.raises(UsageError, match="code of the folder ran"):
        load_model(folder, Options(trust_remote_code=True))


def test_code_of_a_folder_is_not_needed_for_an_architecture_that_transformers_has(tmp_path: Path) -> None:
    saved(tmp_path, model := small_model("mixtral"), tokenizer=False)
    change(tmp_path / "config.json", auto_map={"AutoModelForCausalLM": "own.OwnModel"})
    assert_same(load_model(open_folder(str(tmp_path))), model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "made_up_moe"}, "does not know the architecture made_up_moe"),
        ({"hidden_size": "wide"}, "config.json is not valid"),
        ({"hidden_size": 33}, "lm_head.weight is (320, 32), config.json makes it (320, 33)"),
        ({"hidden_act": "gleu"}, "config.json makes no model: KeyError: 'gleu'"),
        ({"num_hidden_layers": 3}, "model.layers.3."),
        ({"num_hidden_layers": 5}, "model.layers.4."),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "no class that generates text with vit"),
    ],
)
@pytest.mark.parametrize("load", [load_model, load_resident])
def test_a_configuration_that_does_not_fit_is_refused(
    load: Callable[..., object], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    saved(tmp_path, small_model("mixtral"), tokenizer=False)
    change(tmp_path / "config.json", **changes)
    with pytest.raises(UsageError) as caught:
        load(open_folder(str(tmp_path)))
    assert message in caught.value.what
    assert str(tmp_path) in caught.value.what


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (
            {"quant_method": "awq", "bits": 4, "group_size": 128},
            "(awq) here: Loading an AWQ quantized model requires gptqmodel",
        ),
        ({"quant_method": "gptq", "bits": 4}, "(gptq) here: Loading a GPTQ quantized model requires optimum"),
        ({"quant_method": "made_up"}, "(made_up) here: it does not know the method"),
        ({"bits": 4}, "(of an unknown method) here: it does not know the method"),
    ],
)
@pytest.mark.parametrize("load", [load_model, estimate])
def test_quantized_weights_that_cannot_be_loaded_here_are_refused_with_the_reason(
    load: Callable[..., object], quantization: dict[str, Any], message: str, tmp_path: Path
) -> None:
    saved(tmp_path, small_model("mixtral"), tokenizer=False)
    change(tmp_path / "config.json", quantization_config=quantization)
    with pytest.raises(UsageError) as caught:
        load(open_folder(str(tmp_path)))
    assert f"transformers cannot load its quantized weights {message}" in caught.value.what


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
"""The 16 numbers of four bits in the specification of microscaling formats."""


def packed(experts: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random blocks of 32 numbers of 4 bits, their exponents with a bias of 127, and the matrices that they stand for."""
    codes = torch.randint(16, (experts, rows, columns // 32, 32))
    exponents = torch.randint(120, 126, (experts, rows, columns // 32))
    values = FP4[codes] * 2.0 ** (exponents[..., None] - 127)
    blocks = codes[..., ::2] + 16 * codes[..., 1::2]
    return blocks.byte(), exponents.byte(), values.reshape(experts, rows, columns).mT


def test_weights_of_four_bits_are_loaded_with_the_bytes_that_they_have_here(tmp_path: Path) -> None:
    saved(tmp_path, small_model("gpt_oss", intermediate_size=32, dtype="bfloat16").bfloat16(), tokenizer=False)
    tensors, wanted = load_file(tmp_path / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"], wanted[name] = packed(*tensors.pop(name).mT.shape)
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    change(tmp_path / "config.json", quantization_config={"quant_method": "mxfp4"})
    folder = open_folder(str(tmp_path))
    model = load_model(folder)
    for name, values in wanted.items():
        assert torch.equal(model.get_parameter(name).float(), values)
    assert estimate(folder).expert_bytes == sum(model.get_parameter(name).nbytes for name in expert_parameters(model))
    with pytest.raises(UsageError, match=r"quantized \(mxfp4\), so single experts cannot be read"):
        load_resident(folder)


def test_a_dense_model_has_no_experts_to_leave_out(tmp_path: Path) -> None:
    folder = open_folder(str(saved(tmp_path, model := small_model("llama"), tokenizer=False)))
    assert_same(load_model(folder), model)
    for load in (load_resident, estimate):
        with pytest.raises(UsageError, match="it is a dense model"):
            load(folder)


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = open_folder(str(saved(tmp_path, small_model("mixtral"), tokenizer=False)))
    load_model(folder)
    load_resident(folder)
    assert capfd.readouterr() == ("", "")


LIMITED = """
import resource, sys, torch
from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.loading import estimate, load_model, load_resident
from moeprof.huggingface.shards import expert_parameters
from moeprof.records.system.resources import proc_bytes

def private():
    return proc_bytes("/proc/self/status", "VmData:")

small, large = map(open_folder, sys.argv[1:])
load_model(small), load_resident(small)  # loads all modules
size = estimate(large)
largest = max(each.num_bytes for name, each in large.tensors.items() if "experts" not in name)
slot_bytes = 2 * 1024 * 512 * 4
limit = private() + size.resident_bytes + slot_bytes + largest + 64 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
model, shards = load_resident(large)
slot = torch.empty(slot_bytes, dtype=torch.uint8).view(torch.float32)
total = 0
for name in expert_parameters(model):
    shape = model.get_parameter(name).shape[1:]
    for expert in range(8):
        shards.read(name, expert, into := slot[: shape.numel()].view(shape))
        total += into.double().sum().item()
print("experts", size.expert_bytes, "sum", round(total, 1))
try:
    load_model(large)
    print("loaded")
except Exception as error:
    print("no memory:", type(error).__name__)
"""


def test_memory_is_that_of_the_resident_weights_and_the_slots(tmp_path: Path) -> None:
    """A limit of private memory, which the kernel enforces, holds for the resident model and not for the whole one."""
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2, "vocab_size": 4000}
    model = small_model("mixtral", **sizes)
    large = saved(tmp_path / "large", model, tokenizer=False, max_shard_size="40MB")
    small = saved(tmp_path / "small", small_model("mixtral"), tokenizer=False)
    ended = subprocess.run([sys.executable, "-c", LIMITED, str(small), str(large)], capture_output=True, text=True)
    experts = [model.get_parameter(name) for name in expert_parameters(model)]
    total = sum(each.double().sum().item() for each in experts)
    loaded, refused = ended.stdout.splitlines()
    assert loaded == f"experts {sum(each.nbytes for each in experts)} sum {round(total, 1)}", ended.stderr
    assert refused.startswith("no memory:")
