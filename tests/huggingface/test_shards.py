"""Experts come from the shards of a checkpoint one at a time, bit-equal to what transformers loads; incomplete checkpoints are refused."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers.conversion_mapping as conversion_mapping
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoModelForSeq2SeqLM, NllbMoeConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Interleave, WeightConverter

from moeprof.huggingface import loading
from moeprof.huggingface import shards as shards_module
from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.shards import ExpertShards, WeightMap, expert_parameters
from moeprof.records.errors import UsageError
from moeprof.records.system.files import PAGE
from moeprof.store.checkpoint_folder import INDEX, WEIGHTS
from moeprof.store.tensor_files import TensorFiles
from tests.huggingface.architectures import build, decorated_architectures
from tests.huggingface.small_models import saved, small_config, small_model
from tests.store.test_tensor_files import bytes_by_system_calls

QUICK = ["mixtral", "qwen3_moe", "gpt_oss", "granitemoe"]
"""Experts as one tensor each under two kinds of names, fused with biases, and fused under other names."""

UNSAVED = {"inkling2", "inkling2_loop"}
"""Architectures whose `save_pretrained` pads vocabularies to a fixed size, and fails for small ones."""

MORE = sorted(decorated_architectures().keys() - UNSAVED - {*QUICK})
Tensors = dict[str, torch.Tensor]


def in_shards(folder: Path, model: PreTrainedModel, **options: object) -> ExpertShards:
    """The experts of a model that is saved in several files."""
    saved(folder, model, tokenizer=False, max_shard_size="60KB", **options)
    return ExpertShards(WeightMap(open_folder(str(folder)), model))


def slabs_read(shards: ExpertShards, model: PreTrainedModel) -> int:
    """How many experts' slabs are read, each equal to the model's."""
    slabs = 0
    for name in expert_parameters(model):
        for expert, wanted in enumerate(model.get_parameter(name)):
            shards.read(name, expert, found := torch.full_like(wanted, float("nan")))
            assert torch.equal(found, wanted), (name, expert)
            slabs += 1
    return slabs


@pytest.mark.parametrize("architecture", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_every_expert_is_read_bit_equal_from_several_shards(architecture: str, tmp_path: Path) -> None:
    model = build(architecture)
    shards = in_shards(tmp_path, model)
    assert len(shards.weights.folder.shards) > 3
    names = expert_parameters(model)
    assert slabs_read(shards, model) == sum(len(model.get_parameter(name)) for name in names) > 0
    assert not any(map(shards.why_not, names))


def test_an_expert_costs_its_own_bytes(tmp_path: Path) -> None:
    model = small_model("mixtral")
    weights = in_shards(tmp_path, model).weights
    name = expert_parameters(model)[0]
    own = model.get_parameter(name)[3].nbytes
    for direct, most in ((False, own), (True, own + 2 * 2 * PAGE)):
        shards = ExpertShards(weights, direct=direct)
        into = torch.empty_like(model.get_parameter(name)[3])
        shards.read(name, 3, into)
        counted, before = shards.files.bytes_read, bytes_by_system_calls()
        idle = bytes_by_system_calls() - before
        shards.read(name, 3, into)
        assert own <= shards.files.bytes_read - counted <= most
        assert own <= bytes_by_system_calls() - before - 2 * idle <= most
        shards.files.close()


def test_an_expert_is_read_in_the_type_of_the_slot(tmp_path: Path) -> None:
    model = small_model("mixtral")
    shards, name = in_shards(tmp_path, model), expert_parameters(model)[0]
    shards.read(name, 5, slot := torch.empty(model.get_parameter(name).shape[1:], dtype=torch.bfloat16))
    assert torch.equal(slot, model.get_parameter(name)[5].bfloat16())


VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 4,
    "out_hidden_size": 32,
    "deepstack_visual_indexes": [0],
}


def transposed_checkpoint(folder: Path) -> PreTrainedModel:
    """A model of vision and language whose checkpoint holds its experts transposed."""
    text = small_config("qwen3_vl_moe_text", moe_intermediate_size=24).to_dict()
    config = small_config("qwen3_vl_moe", text_config=text, vision_config=VISION)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    saved(folder, model, tokenizer=False)
    tensors = load_file(folder / WEIGHTS)
    save_file({name: each.mT.contiguous() if "experts" in name else each for name, each in tensors.items()}, folder / WEIGHTS)
    return model


def test_experts_that_are_stored_transposed_are_read(tmp_path: Path) -> None:
    model = transposed_checkpoint(tmp_path)
    shards = ExpertShards(WeightMap(open_folder(str(tmp_path)), model))
    assert all(shards.weights.parts[name][0].swapped == (0, 1) for name in expert_parameters(model))
    assert slabs_read(shards, model) == 2 * 4 * 8


def test_other_operations_are_named_and_the_whole_parameter_is_made_by_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("gpt_oss")
    saved(tmp_path, model, tokenizer=False)

    def mapping(of: PreTrainedModel) -> list[object]:
        pattern = "mlp.experts.gate_up_proj"
        return [*get_model_conversion_mapping(of), WeightConverter(pattern, pattern, [Interleave(dim=2)])]

    monkeypatch.setattr(conversion_mapping, "get_model_conversion_mapping", mapping)
    shards = ExpertShards(WeightMap(open_folder(str(tmp_path)), model))
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert shards.why_not(name) == "transformers makes it by Interleave"
    assert shards.why_not("model.layers.0.mlp.experts.down_proj") == ""
    stored = model.get_parameter(name).detach()
    assert torch.equal(shards.whole(name), torch.cat((stored[..., ::2], stored[..., 1::2]), dim=-1))


@pytest.mark.parametrize("architecture", ["mixtral", "gpt_oss"])
def test_a_whole_parameter_is_what_transformers_makes(architecture: str, tmp_path: Path) -> None:
    model = small_model(architecture)
    shards = in_shards(tmp_path, model)
    for name in expert_parameters(model):
        assert torch.equal(shards.whole(name), model.get_parameter(name))


EXPERT = "model.layers.1.block_sparse_moe.experts.{}.w1.weight"


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: each for name, each in tensors.items() if name not in names}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**without(old)(tensors), new: tensors[old]}


def added(new: str, like: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, new: tensors[like].clone()}


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: change(tensors[name]).contiguous()}


GATE_UP = "model.layers.1.mlp.experts.gate_up_proj"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without(EXPERT.format(3)), f"expert 3 of {GATE_UP} is missing; expert 0 is there as {EXPERT.format(0)}"),
        (without(EXPERT.format(7)), f"expert 7 of {GATE_UP} is missing"),
        (added(EXPERT.format(8), EXPERT.format(0)), f"{EXPERT.format(8)} is one expert too many, config.json has 8"),
        (added(EXPERT.format("07"), EXPERT.format(0)), f"expert 7 of {GATE_UP} is there twice"),
        (added(EXPERT.format(2)[6:], EXPERT.format(2)), f"expert 2 of {GATE_UP} is there twice"),
        (
            changed(EXPERT.format(4), torch.Tensor.bfloat16),
            f"{EXPERT.format(4)} is (48, 32) bfloat16, {EXPERT.format(0)} is (48, 32) float32",
        ),
        (changed(EXPERT.format(4), lambda each: each.T), f"{EXPERT.format(4)} is (32, 48) float32"),
        (
            added("model.layers.1.ghost.weight", "lm_head.weight"),
            "model.layers.1.ghost.weight is no parameter of MixtralForCausalLM",
        ),
        (without("lm_head.weight"), "lm_head.weight of MixtralForCausalLM is in none of its files of weights"),
        (changed("lm_head.weight", lambda each: each[1:]), "lm_head.weight is (319, 32), config.json makes it (320, 32)"),
        (added("norm.weight", "model.norm.weight"), "model.norm.weight is there twice, as model.norm.weight and norm.weight"),
        (
            without(*(EXPERT.format(expert) for expert in range(8))),
            f"{GATE_UP} is (8, 48, 32), config.json makes it (8, 96, 32)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(damage: Callable[[Tensors], Tensors], message: str, tmp_path: Path) -> None:
    model = small_model("mixtral")
    saved(tmp_path, model, tokenizer=False)
    save_file(damage(load_file(tmp_path / WEIGHTS)), tmp_path / WEIGHTS)
    with pytest.raises(UsageError) as caught:
        WeightMap(open_folder(str(tmp_path)), model)
    assert caught.value.what.startswith(f"model {tmp_path}: {message}")
    assert caught.value.remedy


def test_names_that_the_class_of_the_model_ignores_are_no_fault(tmp_path: Path) -> None:
    model = small_model("mixtral")
    saved(tmp_path, model, tokenizer=False)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, tmp_path / WEIGHTS)
    assert "lm_head.weight" in WeightMap(open_folder(str(tmp_path)), model).targets


def test_an_expert_is_known_by_the_number_in_which_names_differ() -> None:
    def ids(*names: str) -> list[int]:
        return shards_module.expert_ids([shards_module.Stored(name, Path(), 0, (1,), torch.float32) for name in names])

    assert ids("layers.3.experts.0.w1", "layers.3.experts.10.w1", "layers.3.experts.2.w1") == [0, 10, 2]
    assert ids("layers.3.expert_1.w1", "layers.3.expert_0.w1") == [1, 0]
    assert ids("layers.3.experts.5.w1") == [0]


def published(folder: Path) -> int:
    """nllb-moe-54b without its data: the names and shapes of its published configuration, in 23 files of zeros that take no space."""
    config = NllbMoeConfig(
        vocab_size=256206,
        d_model=2048,
        encoder_layers=24,
        decoder_layers=24,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=8192,
        decoder_ffn_dim=8192,
        num_experts=128,
        encoder_sparse_step=4,
        decoder_sparse_step=4,
        architectures=["NllbMoeForConditionalGeneration"],
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config)
    parameters = list(model.named_parameters())
    files = {name: f"model-{index % 23 + 1:05}-of-00023.safetensors" for index, (name, _) in enumerate(parameters)}
    for file in set(files.values()):
        end, entries = 0, {}
        for name, parameter in parameters:
            if files[name] == file:
                entries[name] = {
                    "dtype": "F32",
                    "shape": list(parameter.shape),
                    "data_offsets": [end, end := end + 4 * parameter.numel()],
                }
        header = json.dumps(entries).encode()
        (folder / file).write_bytes(struct.pack("<Q", len(header)) + header)
        os.truncate(folder / file, 8 + len(header) + end)
    (folder / INDEX).write_text(json.dumps({"weight_map": files}))
    return sum(parameter.numel() for _, parameter in parameters)


@pytest.mark.slow
def test_nllb_moe_54b_resolves_from_its_index(tmp_path: Path) -> None:
    parameters = published(tmp_path)
    assert 54.0e9 < parameters < 54.6e9
    folder = open_folder(str(tmp_path))
    assert sum(tensor.num_bytes for tensor in folder.tensors.values()) == 4 * parameters
    model = loading.skeleton(folder)
    weights = WeightMap(folder, model)
    assert len(weights.targets) == len(list(model.parameters()))
    expert = weights.targets["model.decoder.layers.3.ffn.experts.expert_127.fc1.weight"]
    assert expert.stored[0].shape == (8192, 2048)
    assert TensorFiles().tensor(expert.stored[0].row(8191), torch.float32).count_nonzero() == 0
