"""NLLB-MoE folders run as our encoder-decoder: logits of an independent forward pass; what does not fit is refused in two lines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moeprof.models.buffers import filling
from moeprof.models.build import build_model, make_model
from moeprof.models.checkpoint import check_checkpoint
from moeprof.models.nllb import recipe_of
from moeprof.models.translation_model import TranslationModel
from moeprof.moe.layer import moe_layers, use_variant
from moeprof.parallel.group import Group
from moeprof.records.errors import UsageError
from moeprof.records.recipe.variant import Variant
from moeprof.records.recipe.weights import weights_hash
from moeprof.records.system.resources import proc_bytes
from moeprof.store.resident import ExpertWeights
from moeprof.store.tensor_files import Stored, TensorFiles

from .nllb_reference import Reference
from .shapes import real_up_to, remembered, step_of

pytest.importorskip("transformers", reason="needs the extra moeprof[hf]")

from .nllb_models import (
    EXPERTS,
    VOCABULARY,
    nllb_config,
    nllb_folder,
    nllb_model,
    ours_in,
    recipe_in,
    route_rightly,
    tensors_of,
)

SOURCE_LENGTHS, TARGET_LENGTHS = [9, 4, 7], [6, 8, 3]
SINGLE = "model.safetensors"
EXPERT_3 = "model.decoder.layers.1.ffn.experts.expert_3.fc1.weight"


def sentences(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Ids (B, L), padded on the right with the usual id, and which are real."""
    ids = torch.from_numpy(np.random.default_rng(seed).integers(4, VOCABULARY, (len(lengths), max(lengths))))
    real = real_up_to(lengths, max(lengths))
    return ids.masked_fill(~real, 1), real


def logits(model: TranslationModel) -> Tensor:
    """Of a batch with padding in sources and targets."""
    (source, source_real), (target, target_real) = sentences(SOURCE_LENGTHS, 0), sentences(TARGET_LENGTHS, 1)
    found: Tensor = model(target, remembered(model, source, step_of(source_real)), step_of(target_real))
    return found


def reference(**changes: Any) -> tuple[Tensor, Reference]:
    """The logits of the same batch in float64, and the reference that has computed them."""
    model = nllb_model(**changes)
    plain = Reference(tensors_of(model), model.config)
    (source, source_real), (target, target_real) = sentences(SOURCE_LENGTHS, 0), sentences(TARGET_LENGTHS, 1)
    found = plain.logits(source.numpy(), source_real.numpy(), target.numpy(), target_real.numpy())
    return torch.from_numpy(found), plain


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of any logit of a real target token."""
    real = real_up_to(TARGET_LENGTHS, max(TARGET_LENGTHS))
    return float((ours.double() - theirs)[real].abs().max())


CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"normalize_router_prob_before_dropping": True, "moe_token_dropout": 0.0},
    {"moe_eval_capacity_token_fraction": 0.25},
    {"moe_eval_capacity_token_fraction": 0.25, "normalize_router_prob_before_dropping": True},
    {"moe_eval_capacity_token_fraction": 0.1, "normalize_router_prob_before_dropping": True, "moe_token_dropout": 0.5},
    {"scale_embedding": False, "pad_token_id": 0},
    {"encoder_sparse_step": 1, "decoder_sparse_step": 3},
    {"encoder_sparse_step": 0, "decoder_sparse_step": 1},
    {"encoder_layers": 2, "decoder_layers": 3, "decoder_sparse_step": 0, "num_experts": 4},
    {"moe_eval_capacity_token_fraction": 1.0, "batch_prioritized_routing": True, "pad_token_id": 5},
]


@pytest.mark.parametrize("changes", CONFIGURATIONS, ids=str)
def test_logits_are_those_of_an_independent_forward_pass(tmp_path: Path, changes: dict[str, Any]) -> None:
    wanted, plain = reference(**changes)
    ours = ours_in(nllb_folder(tmp_path, **changes))
    assert wanted.abs().max() > 1
    assert len(plain.dropped) == len(moe_layers(ours))
    assert (sum(plain.dropped) > 0) == (changes.get("moe_eval_capacity_token_fraction", 1.0) < 1)
    assert distance(logits(ours), wanted) < 1e-4
    for name in ("tutel", *(["dynamic"] if not sum(plain.dropped) else [])):
        use_variant(ours, Variant(name))
        assert distance(logits(ours), wanted) < 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        {"normalize_router_prob_before_dropping": True},
        {"moe_token_dropout": 0.0},
        {"moe_eval_capacity_token_fraction": 0.3},
        {"scale_embedding": False},
        {"pad_token_id": 0},
    ],
    ids=str,
)
def test_every_key_of_the_configuration_matters_to_the_logits(tmp_path: Path, wrong: dict[str, Any]) -> None:
    wanted, _ = reference(moe_eval_capacity_token_fraction=0.25)
    folder = nllb_folder(tmp_path, **{"moe_eval_capacity_token_fraction": 0.25, **wrong})
    assert distance(logits(ours_in(folder)), wanted) > 1e-2


def test_the_reference_is_transformers_own_model_once_its_experts_get_the_right_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"moe_eval_capacity_token_fraction": 0.25, "normalize_router_prob_before_dropping": True}
    wanted, _ = reference(**changes)
    assert distance(upstream(changes), wanted) > 1e-2
    route_rightly(monkeypatch)
    assert distance(upstream(changes), wanted) < 1e-4


def upstream(changes: dict[str, Any]) -> Tensor:
    """The logits of transformers, with eager attention, from whose masks it takes the padding."""
    (source, source_real), (target, target_real) = sentences(SOURCE_LENGTHS, 0), sentences(TARGET_LENGTHS, 1)
    model = nllb_model(**changes)
    with torch.no_grad():
        found: Tensor = model(
            input_ids=source,
            attention_mask=source_real.long(),
            decoder_input_ids=target,
            decoder_attention_mask=target_real.long(),
        ).logits
    return found


def test_upstream_nllb_is_wrong() -> None:
    """Every token goes to expert 1, and once to expert 0 for each of the other experts."""
    model, num_tokens = nllb_model(encoder_layers=2, decoder_layers=1), 14
    rows: dict[int, int] = {}
    for number in range(EXPERTS):
        module = model.model.encoder.layers[1].ffn.experts[f"expert_{number}"]
        module.register_forward_hook(lambda _, inputs, __, number=number: rows.update({number: len(inputs[0])}))
    model.model.encoder(input_ids=torch.arange(4, 4 + num_tokens)[None])
    assert rows == {0: (EXPERTS - 1) * num_tokens, 1: num_tokens}, (
        "this version of transformers no longer sends all tokens of NLLB-MoE to experts 0 and 1: "
        "drop the warning (moeprof/records/recipe/nllb.py, docs/recipes.md), and run NLLB-MoE through transformers"
    )


def test_one_file_and_several_shards_give_the_same_model(tmp_path: Path) -> None:
    one, several = nllb_folder(tmp_path / "one"), nllb_folder(tmp_path / "several", max_shard_size="100KB")
    assert len(list(several.glob("*.safetensors"))) > 5
    found, wanted = dict(ours_in(several).named_parameters()), dict(ours_in(one).named_parameters())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_embedding_may_have_any_of_its_names_and_old_tables_of_positions_are_ignored(tmp_path: Path) -> None:
    folder = nllb_folder(tmp_path)
    wanted, tensors = ours_in(folder).embedding.weight, load_file(folder / SINGLE)
    shared = tensors.pop("model.shared.weight")
    tensors |= {"lm_head.weight": shared, "model.decoder.embed_tokens.weight": shared.clone()}
    tensors["model.encoder.embed_positions.weights"] = torch.ones(9, 32)
    save_file(tensors, folder / SINGLE)
    assert torch.equal(ours_in(folder).embedding.weight, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_keep_their_type_and_routers_are_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    nllb_model().to(dtype).save_pretrained(tmp_path)
    ours, tensors = ours_in(tmp_path), load_file(tmp_path / SINGLE)
    kept = torch.float32 if dtype == torch.float64 else dtype
    assert ours.decoder[1].ffn.experts.w1.dtype == kept
    assert torch.equal(ours.decoder[1].ffn.experts.w1[3], tensors[EXPERT_3].to(kept).t())
    assert torch.equal(
        ours.decoder[1].ffn.router.weight, tensors["model.decoder.layers.1.ffn.router.classifier.weight"].float()
    )
    assert ours.decoder[1].ffn.router.weight.dtype == torch.float32


def test_a_router_may_be_float32_beside_narrower_weights(tmp_path: Path) -> None:
    folder = nllb_folder(tmp_path)
    tensors = load_file(folder / SINGLE)
    save_file({name: each if ".router." in name else each.bfloat16() for name, each in tensors.items()}, folder / SINGLE)
    assert recipe_of(folder)["model"]["dtype"] == "bfloat16"
    assert torch.equal(
        ours_in(folder).encoder[3].ffn.router.weight, tensors["model.encoder.layers.3.ffn.router.classifier.weight"]
    )


def test_each_rank_reads_its_own_experts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, read = nllb_folder(tmp_path, max_shard_size="100KB"), []
    whole = ours_in(folder)
    plain = TensorFiles.read
    monkeypatch.setattr(TensorFiles, "read", lambda self, source, into: (read.append(source.name), plain(self, source, into)))
    recipe = recipe_in(folder, lambda document: document.update(parallel={"ranks": 2}))
    second = build_model(recipe, group=Group(1, 2))
    for ours, wanted in zip(moe_layers(second), moe_layers(whole), strict=True):
        assert all(torch.equal(ours.experts.weights[name], wanted.experts.weights[name][4:]) for name in wanted.experts.names)
    assert {int(name.split(".expert_")[1].split(".")[0]) for name in read if ".expert_" in name} == {4, 5, 6, 7}


def test_cache_slots_are_filled_from_the_folder_expert_by_expert(tmp_path: Path) -> None:
    folder = nllb_folder(tmp_path, max_shard_size="100KB")
    experts = ours_in(folder).decoder[3].ffn.experts
    into = ExpertWeights({name: torch.empty_like(whole[0]) for name, whole in experts.weights.items()})
    with filling(recipe_in(folder)) as fill:
        for expert in (5, 0):
            fill("dec.3", expert, into)
            assert all(torch.equal(into[name], whole[expert]) for name, whole in experts.weights.items())


def test_the_weights_of_a_folder_are_known_by_the_contents_of_all_its_files(tmp_path: Path) -> None:
    """Unlike the index, which fine-tuned models share."""
    folder = nllb_folder(tmp_path, max_shard_size="100KB")
    recipe, shard = recipe_in(folder), sorted(folder.glob("*.safetensors"))[3]
    before, content = weights_hash(recipe), shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights_hash(recipe) != before
    shard.write_bytes(content)
    assert weights_hash(recipe) == before


def test_loading_takes_the_memory_of_the_model_and_of_one_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of experts in files of 8 MiB; a second copy of them would be seen at the latest after the last read."""
    wide = {f"{stack}_{key}": size for stack in ("encoder", "decoder") for key, size in {"layers": 2, "ffn_dim": 256}.items()}
    folder = nllb_folder(tmp_path, max_shard_size="8MB", d_model=256, num_experts=64, **wide)
    recipe, plain = recipe_in(folder), TensorFiles.read
    private = [proc_bytes("/proc/self/status", "RssAnon:")]

    def watched(self: TensorFiles, source: Stored, into: Tensor) -> None:
        plain(self, source, into)
        private.append(proc_bytes("/proc/self/status", "RssAnon:"))

    monkeypatch.setattr(TensorFiles, "read", watched)
    model = build_model(recipe)
    size = sum(parameter.nbytes for parameter in model.parameters())
    assert size > 64 * 2**20
    assert max(private) - private[0] < size + 16 * 2**20


def refusal(call: Callable[[], object]) -> str:
    """What a UsageError of two lines says in its first."""
    with pytest.raises(UsageError) as caught:
        call()
    assert all(str(caught.value).split("\n"))
    assert str(caught.value).count("\n") == 1
    return caught.value.what


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """The folder, with its tensors changed."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)
    return folder


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tensors: tensors.pop(EXPERT_3), f"{EXPERT_3} is absent, the recipe's model has (48, 32)"),
        (
            lambda tensors: tensors.update({EXPERT_3: torch.ones(40, 32)}),
            f"{EXPERT_3} is (40, 32), the recipe's model has (48, 32)",
        ),
        (lambda tensors: tensors.update({"model.extra": torch.ones(3)}), "model.extra is (3,), the recipe's model has none"),
        (
            lambda tensors: tensors.update({EXPERT_3: tensors[EXPERT_3].half()}),
            f"{EXPERT_3} of type float16",
        ),
        (lambda tensors: tensors.update({EXPERT_3: torch.ones(48, 32, dtype=torch.int8)}), f"{EXPERT_3} is of type int8"),
        (lambda tensors: tensors.clear(), "model.shared.weight is absent"),
    ],
    ids=["missing", "shape", "extra", "mixed", "integers", "empty"],
)
def test_tensors_that_are_not_those_of_the_model_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], what: str
) -> None:
    folder = nllb_folder(tmp_path)
    recipe = recipe_in(folder)
    rewritten(folder, change)
    message = refusal(lambda: check_checkpoint(make_model(recipe), folder))
    assert message.startswith(f"checkpoint {folder}: ")
    assert what in message


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = nllb_folder(tmp_path, max_shard_size="100KB")
    shard = sorted(folder.glob("*.safetensors"))[2]
    shard.unlink()
    assert shard.name in refusal(lambda: recipe_of(folder))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model_type": "mixtral"}, "model_type 'mixtral'"),
        ({"decoder_ffn_dim": 64}, "encoder_ffn_dim 48 and decoder_ffn_dim 64 differ"),
        ({"decoder_attention_heads": 2}, "encoder_attention_heads 4 and decoder_attention_heads 2 differ"),
        ({"activation_function": "gelu_new"}, "activation_function 'gelu_new'"),
        ({"second_expert_policy": "sampling"}, "second_expert_policy 'sampling' draws random numbers"),
        ({"moe_eval_capacity_token_fraction": -1.0}, "moe_eval_capacity_token_fraction -1.0"),
        ({"batch_prioritized_routing": True, "moe_eval_capacity_token_fraction": 0.5}, "batch_prioritized_routing"),
        ({"router_dtype": "bfloat16"}, "router_dtype 'bfloat16'"),
        ({"router_bias": True}, "router_bias true"),
        ({"router_ignore_padding_tokens": True}, "router_ignore_padding_tokens true"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings false"),
        ({"moe_token_dropout": 1.5}, "moe_token_dropout"),
        ({"d_model": "wide"}, "d_model"),
        ({"pad_token_id": None}, "pad_token_id"),
    ],
    ids=str,
)
def test_a_configuration_that_asks_for_something_else_is_refused_by_its_key(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    folder = nllb_folder(tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert what in refusal(lambda: recipe_of(folder))


def test_the_published_54b_model_resolves_without_its_weights(tmp_path: Path) -> None:
    """A folder with the names and shapes that transformers gives the published configuration; the weights are holes in its files."""
    from transformers import NllbMoeForConditionalGeneration

    config = nllb_config(
        vocab_size=256206, d_model=2048, num_experts=128, normalize_router_prob_before_dropping=True,
        **{f"{stack}_{key}": value for stack in ("encoder", "decoder") for key, value in PUBLISHED.items()},
    )  # fmt: skip
    with torch.device("meta"):
        theirs = NllbMoeForConditionalGeneration(config)
    tied = {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    shapes = {name: tuple(each.shape) for name, each in theirs.state_dict().items() if name not in tied}
    config.save_pretrained(tmp_path)
    hollow_shards(tmp_path, shapes, 14)
    recipe = recipe_in(tmp_path)
    model = make_model(recipe)
    check_checkpoint(model, tmp_path)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert recipe.model.encoder_moe_layers == [f"enc.{layer}" for layer in range(3, 24, 4)]
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(int(np.prod(shape)) for shape in shapes.values())


PUBLISHED = {"layers": 24, "ffn_dim": 8192, "attention_heads": 16, "sparse_step": 4}


def hollow_shards(folder: Path, shapes: dict[str, tuple[int, ...]], count: int) -> None:
    """Safetensors files in bfloat16 whose headers are whole and whose data take no room on disk, with their index."""
    names, weight_map = list(shapes), {}
    for number in range(count):
        file = folder / f"model-{number + 1:05}-of-{count:05}.safetensors"
        header, end = {}, 0
        for name in names[number::count]:
            begin, end = end, end + 2 * int(np.prod(shapes[name]))
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [begin, end]}
            weight_map[name] = file.name
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text)
        with file.open("r+b") as opened:
            opened.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
