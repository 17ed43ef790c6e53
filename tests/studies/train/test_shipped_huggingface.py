"""hf-tiny, the folder in Hugging Face layout that comes with the package, keeps what its card promises."""

from pathlib import Path

import pytest
import torch

from moeprof.records.recipe.files import load_recipe, recipe_folder
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.weights import file_hash
from moeprof.studies.train.appraisal import size_of
from moeprof.studies.train.checkpoint import made_by, read_origin
from moeprof.studies.train.corpus import make_corpus
from moeprof.studies.train.heldout import cross_entropies
from moeprof.studies.train.huggingface import HuggingFaceLearner
from moeprof.studies.train.usage import lesson_uses
from moeprof.workloads.tokenizers import ByteTokenizer

transformers = pytest.importorskip("transformers", reason="needs the extra moeprof[hf]")


@pytest.fixture(scope="module")
def folder() -> Path:
    return recipe_folder() / "hf-tiny"


def without_documentation() -> Recipe:
    """The recipe with little text, all of it of the default domains, which needs no package index."""
    recipe = load_recipe("hf-tiny", ("train.corpus_size=2000",))
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"documentation": None})})


def test_the_folder_is_small_is_of_this_recipe_and_is_the_one_on_the_card(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert size_of(folder) + len(card.encode()) <= 8_000_000
    origin = read_origin(folder)
    assert origin is not None
    assert made_by(origin, load_recipe("hf-tiny"))
    assert set(origin.text_hashes) == {"prose", "code", "records", "documentation"}
    assert file_hash(folder / "model.safetensors") in card
    assert "MISSED" not in card


def test_transformers_loads_a_qwen3_moe_with_two_of_at_least_eight_experts(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert model.config.model_type == "qwen3_moe"
    assert model.config.num_experts >= 8
    assert model.config.num_experts_per_tok == 2
    text = "Grüße, 世界"
    assert tokenizer(text, add_special_tokens=False).input_ids == ByteTokenizer().encode(text)
    prompt = tokenizer("The model is ", return_tensors="pt")
    continued = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt.input_ids.shape[1] :]
    assert tokenizer.decode(continued).isascii()


def test_it_predicts_every_default_domain_as_its_card_says_with_all_experts(folder: Path) -> None:
    origin, learner = read_origin(folder), HuggingFaceLearner.trained(folder)
    assert origin is not None
    recipe = without_documentation()
    heldout = make_corpus(recipe).heldout(recipe.train.heldout_sequences)
    with torch.inference_mode():
        for domain, found in cross_entropies(learner, heldout).items():
            assert found == pytest.approx(origin.curve[-1].heldout[domain], rel=0.03)
        uses = lesson_uses(learner, heldout)
    assert [use.dead_experts for use in uses] == [0] * 4
    assert min(jaccard for use in uses for jaccard in use.hot_jaccard.values()) <= 0.5
