"""A recipe's sections: which layers are sparse, which phases run, and what cannot be."""

from typing import Any

import pytest
from pydantic import ValidationError

from moeprof.records.recipe.recipe import PHASES, Recipe

LM: dict[str, Any] = {
    "schema": 1,
    "workload": "lm",
    "model": {
        "decoder_layers": 24,
        "dim": 1024,
        "ffn_dim": 4096,
        "heads": 16,
        "vocab_size": 51200,
        "experts": 512,
        "moe_every": 2,
        "activation": "gelu",
        "tokenizer": "bytes",
    },
    "load": {"batch_size": 8, "sequence_length": 512},
}


def recipe(**changes: Any) -> Recipe:
    """The paper's LM with keys changed, written `section__key` or `key`."""
    document = {key: dict(value) if isinstance(value, dict) else value for key, value in LM.items()}
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        (document.setdefault(section, {}) if section else document)[key] = value
    return Recipe.model_validate(document)


def mt(**changes: Any) -> Recipe:
    """An encoder-decoder of 24 + 24 layers, sparse at every fourth."""
    return recipe(workload="mt", model__encoder_layers=24, model__moe_every=4, **changes)


def refusal(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        recipe(**changes)
    assert caught.value.error_count() == 1
    return caught.value.errors()[0]["msg"]


def test_the_sparse_layers_of_the_language_model_are_every_second() -> None:
    model = recipe().model
    assert model.decoder_moe_layers == ["1", "3", "5", "7", "9", "11", "13", "15", "17", "19", "21", "23"]
    assert model.encoder_moe_layers == []
    assert not model.encoder_decoder


def test_the_sparse_layers_of_the_translation_model_are_every_fourth_of_each_stack() -> None:
    model = mt().model
    assert model.encoder_moe_layers == ["enc.3", "enc.7", "enc.11", "enc.15", "enc.19", "enc.23"]
    assert model.decoder_moe_layers == ["dec.3", "dec.7", "dec.11", "dec.15", "dec.19", "dec.23"]
    assert model.encoder_decoder


def test_the_decoder_may_have_its_own_distance_between_sparse_layers() -> None:
    model = mt(model__decoder_moe_every=9).model
    assert model.encoder_moe_layers == ["enc.3", "enc.7", "enc.11", "enc.15", "enc.19", "enc.23"]
    assert model.decoder_moe_layers == ["dec.8", "dec.17"]
    assert mt(model__decoder_moe_every=25).model.decoder_moe_layers == []


def test_tokens_of_a_phase_pass_the_layers_of_its_stack() -> None:
    assert mt().moe_layers("encode")[0] == "enc.3"
    assert mt().moe_layers("decode")[0] == "dec.3"
    assert recipe().moe_layers("score") == recipe().moe_layers("decode") == recipe().model.decoder_moe_layers


def test_all_phases_run_unless_some_are_named() -> None:
    assert PHASES == {"lm": ("score", "decode"), "mt": ("encode", "decode")}
    assert recipe().phases == ["score", "decode"]
    assert mt().phases == ["encode", "decode"]
    assert recipe(load__phases=["decode"]).phases == ["decode"]


def test_what_a_recipe_leaves_out_has_the_value_of_the_design() -> None:
    plain = recipe()
    assert (plain.gating.top_k, plain.gating.capacity_fraction, plain.gating.padding) == (2, 1.0, "longest")
    assert (plain.parallel.ranks, plain.parallel.timeout_s) == (1, 300.0)
    assert (plain.measure.warmup, plain.measure.rounds, plain.measure.seed, plain.measure.device) == (3, 10, 0, "cpu")
    assert (plain.routing.source, plain.budget.memory, plain.data.files, plain.data.max_tokens) == ("model", None, {}, None)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_an_element_has_the_bytes_of_its_type(dtype: str, size: int) -> None:
    assert recipe(model__dtype=dtype).model.bytes_per_element == size


@pytest.mark.parametrize(("written", "size_bytes"), [("1.5GiB", 1_610_612_736), ("200 MB", 200_000_000), (4096, 4096)])
def test_the_memory_budget_is_a_number_or_a_size(written: str | int, size_bytes: int) -> None:
    assert recipe(budget__memory=written).budget.memory == size_bytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gating__top_k": 513}, "Value error, gating.top_k is 513, but model.experts is 512"),
        ({"parallel__ranks": 3}, "Value error, model.experts 512 is not a multiple of parallel.ranks 3"),
        ({"parallel__ranks": 1024}, "Value error, model.experts 512 is not a multiple of parallel.ranks 1024"),
        ({"model__moe_every": 25}, "Value error, model.moe_every 25 leaves no MoE layer"),
        ({"model__heads": 15}, "Value error, dim 1024 is not a multiple of heads 15"),
        ({"model__encoder_layers": 2}, "Value error, model.encoder_layers must be 0 for workload 'lm'"),
        ({"model__ffn": "gate"}, "Value error, unknown FFN form 'gate', known are mlp, gated"),
        ({"model__family": "decoder"}, "Value error, unknown family 'decoder', known are decoder-only, encoder-decoder"),
        ({"model__family": "encoder-decoder"}, "Value error, model.family 'encoder-decoder' runs workload 'mt', not 'lm'"),
        ({"workload": "mt"}, "Value error, model.encoder_layers must be at least 1 for workload 'mt'"),
        ({"load__phases": []}, "Value error, load.phases must name at least one phase, each once: score, decode"),
        (
            {"load__phases": ["score", "score"]},
            "Value error, load.phases must name at least one phase, each once: score, decode",
        ),
        ({"load__phases": ["encode"]}, "Value error, load.phases has 'encode'; lm has score, decode"),
        ({"load__prompt_length": 513}, "Value error, load.prompt_length 513 is longer than load.sequence_length 512"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message


def test_rotary_positions_need_pairs_of_elements_in_every_head() -> None:
    assert recipe(model__positions="rotary").model.positions == "rotary"
    message = refusal(model__positions="rotary", model__dim=48, model__heads=16)
    assert message == "Value error, rotary positions need an even width per head, not 3"


def test_only_sinusoidal_positions_have_a_first_number() -> None:
    assert recipe(model__first_position=2, model__positions="sinusoidal").model.first_position == 2
    message = refusal(model__first_position=2, model__positions="alibi")
    assert message == "Value error, first_position 2 needs sinusoidal positions, not alibi"


def test_the_limits_themselves_are_allowed() -> None:
    assert recipe(gating__top_k=512).gating.top_k == 512
    assert recipe(gating__capacity_fraction=1).gating.capacity_fraction == 1.0
    assert recipe(parallel__ranks=512).parallel.ranks == 512
    assert recipe(model__vocab_size=260).model.vocab_size == 260
    assert recipe(load__prompt_length=513, load__phases=["score"]).phases == ["score"]


@pytest.mark.parametrize(
    "changes",
    [
        {"gating__capacity_fraction": 0},
        {"gating__capacity_fraction": 0.0},
        {"gating__capacity_fraction": -0.5},
        {"gating__capacity_fraction": 1.0000001},
        {"gating__capacity_fraction": float("nan")},
        {"gating__capacity_fraction": "0.5"},
        {"gating__top_k": 0},
        {"gating__top_k": 2.0},
        {"gating__top_k": "2"},
        {"gating__top_k": True},
        {"model__experts": 0},
        {"model__vocab_size": 259},
        {"model__activation": "swish"},
        {"model__expert_output_masking": 1.0},
        {"model__exprts": 8},
        {"model__checkpoint": 3},
        {"load__batch_size": 0},
        {"load__sequence_length": 1},
        {"load__phases": ["train"]},
        {"measure__rounds": 0},
        {"measure__device": "tpu"},
        {"parallel__timeout_s": 0},
        {"parallel__timeout_s": float("inf")},
        {"budget__memory": "lots"},
        {"budget__memory": 0},
        {"schema": 2},
        {"workload": "vision"},
        {"gates": {}},
    ],
)
def test_wrong_types_ranges_and_keys_are_refused(changes: dict[str, Any]) -> None:
    refusal(**changes)


def test_a_resolved_recipe_comes_back_from_json() -> None:
    resolved = mt(budget__memory="1GiB", data__files={"ne-en": ["a", "b"]}, gating__capacity_fraction=0.07)
    again = Recipe.model_validate_json(resolved.model_dump_json(by_alias=True))
    assert again == resolved


def test_keys_that_came_later_and_have_their_default_are_only_those_that_the_section_has() -> None:
    later = recipe().unset_later_keys
    assert later["model"] == {"ffn", "ffn_bias", "family", "decoder_moe_every", "first_position", "scale_embedding"}
    assert later["gating"] == {"normalize_before_dropping"}
    assert recipe(gating__normalize_before_dropping=True, model__scale_embedding=False).unset_later_keys == {
        "model": later["model"] - {"scale_embedding"},
        "gating": set(),
        "data": {"too_long"},
    }
    document = {"workload": "lm", "model": {"huggingface": "folder"}, "load": {"batch_size": 1, "sequence_length": 16}}
    assert Recipe.model_validate(document).unset_later_keys["model"] == set()


def test_the_schema_for_editors_documents_every_key() -> None:
    schema = Recipe.model_json_schema()
    sections = [schema, *(section for section in schema["$defs"].values() if "properties" in section)]
    undocumented = [
        key
        for section in sections
        for key, field in section["properties"].items()
        if "description" not in field and "$ref" not in field and "$ref" not in str(field.get("allOf"))
    ]
    assert undocumented == []
    assert all(section["additionalProperties"] is False for section in sections)
