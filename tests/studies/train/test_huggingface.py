"""A model of transformers is trained by the same loop: twice or in two sittings the same weights, in a folder that transformers loads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.models.build import num_parameters
from moeprof.moe.routing import Routing
from moeprof.records.errors import UsageError
from moeprof.reporters.documents.model_card import render
from moeprof.studies.train.appraisal import appraise
from moeprof.studies.train.byte_tokenizer import SPECIALS, byte_tokenizer
from moeprof.studies.train.changes import answers
from moeprof.studies.train.checkpoint import read_origin
from moeprof.studies.train.corpus import make_corpus
from moeprof.studies.train.heldout import cross_entropies
from moeprof.studies.train.huggingface import HuggingFaceLearner
from moeprof.studies.train.lessons import lesson
from moeprof.studies.train.objective import losses_of
from moeprof.studies.train.optimizer import make_optimizers
from moeprof.studies.train.state import state_path
from moeprof.studies.train.study import train
from moeprof.workloads.tokenizers import ByteTokenizer

from .huggingface_lessons import taught
from .lessons import Quiet

transformers = pytest.importorskip("transformers", reason="models of transformers need the extra moeprof[hf]")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def untrained(folder: Path) -> HuggingFaceLearner:
    return HuggingFaceLearner.untrained(taught(folder))


def test_an_interrupted_training_goes_on_to_the_same_folder(tmp_path: Path) -> None:
    recipe = taught(tmp_path)
    train(recipe, tmp_path / "whole", Quiet())
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", Quiet(3))
    assert state_path(tmp_path / "parts").exists()
    assert not (tmp_path / "parts").exists()
    train(recipe, tmp_path / "parts", Quiet())
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob("*.partial"))


def test_training_lowers_the_held_out_loss_and_moves_every_parameter(tmp_path: Path) -> None:
    recipe = taught(tmp_path, None, "train.steps=30", "train.evaluate_every=15")
    course = train(recipe, tmp_path / "out", Quiet())
    first, last = (point.heldout for point in course.curve)
    assert all(last[domain] < first[domain] for domain in first)
    before = dict(HuggingFaceLearner.untrained(recipe).model.named_parameters())
    after = dict(HuggingFaceLearner.trained(tmp_path / "out").model.named_parameters())
    assert all(not torch.equal(before[name].bfloat16(), value.bfloat16()) for name, value in after.items())


def test_transformers_loads_the_folder_with_the_same_model_and_tokenizer(tmp_path: Path) -> None:
    learner, out = untrained(tmp_path), tmp_path / "out"
    course = train(taught(tmp_path), out, Quiet())
    model = transformers.AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert type(model).__name__ == "Qwen3MoeForCausalLM"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert num_parameters(model) == num_parameters(learner.model)
    assert tokenizer("é a").input_ids == [1, 4 + 0xC3, 4 + 0xA9, 4 + 0x20, 4 + 0x61]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.model_max_length == 32
    generated = model.generate(**tokenizer("ab", return_tensors="pt"), max_new_tokens=3, do_sample=False)
    assert generated.shape == (1, 6)
    origin = read_origin(out)
    assert origin is not None
    assert origin.tokens == course.tokens == 6 * 4 * 23
    assert origin.recipe["model"]["hidden_size"] == 16


def test_weights_are_rounded_to_bfloat16_and_nothing_else(tmp_path: Path) -> None:
    learner = untrained(tmp_path)
    train(taught(tmp_path), tmp_path / "out", Quiet())
    origin = read_origin(tmp_path / "out")
    assert origin is not None
    learner.write(tmp_path / "again", origin)
    read = HuggingFaceLearner.trained(tmp_path / "again").model
    for name, value in learner.model.named_parameters():
        assert torch.equal(read.get_parameter(name), value.bfloat16())


def test_auxiliary_losses_are_those_of_the_routers_own_logits(tmp_path: Path) -> None:
    learner, batch = untrained(tmp_path), lesson([[1, 10, 11, 12], [1, 20, 21, 22]])
    with torch.no_grad():
        found = losses_of(learner, batch)
        outputs = learner.model(input_ids=batch.tokens_BL, output_router_logits=True, use_cache=False)
    assert len(outputs.router_logits) == 2
    balance = z = 0.0
    for logits_TE in outputs.router_logits:
        scores = logits_TE.double().numpy()
        sums = np.exp(scores).sum(axis=1)
        gates = np.exp(scores) / sums[:, None]
        chosen = np.argsort(-scores, axis=1)[:, :2]
        share = np.bincount(chosen.flatten(), minlength=4) / chosen.size
        balance += 4 * (share * gates.mean(axis=0)).sum()
        z += (np.log(sums) ** 2).mean()
    assert float(found.balance) == pytest.approx(balance, rel=1e-5)
    assert float(found.z) == pytest.approx(z, rel=1e-5)
    logs = torch.log_softmax(outputs.logits.double(), dim=2).gather(2, batch.targets_BL[:, :, None])
    assert float(found.cross_entropy) == pytest.approx(-float(logs.mean()), rel=1e-5)


def first_two(routing: Routing) -> Routing:
    """Experts 0 and 1 for every token, three parts to one."""
    ids_TK = torch.tensor([[0, 1]]).expand_as(routing.experts_TK)
    return replace(routing, experts_TK=ids_TK, probs_TK=torch.tensor([[0.3, 0.1]]).expand_as(routing.probs_TK))


def test_decisions_of_a_look_replace_those_of_the_router(tmp_path: Path) -> None:
    learner, batch = untrained(tmp_path), lesson([[1, 10, 11, 12, 13]])
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hook(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[1:3])

    experts = learner.model.model.layers[0].mlp.experts
    with torch.no_grad(), learner.at_routers(lambda layer, logits_TE, routing: first_two(routing) if layer == "0" else None):
        handle = experts.register_forward_pre_hook(hook)
        learner.logits(batch)
        handle.remove()
    ids_TK, weights_TK = seen[0]
    assert ids_TK.tolist() == [[0, 1]] * 4
    torch.testing.assert_close(weights_TK, torch.tensor([[0.75, 0.25]] * 4))


def test_muon_has_the_inner_matrices_but_not_the_embedding_that_is_also_the_output(tmp_path: Path) -> None:
    learner, recipe = untrained(tmp_path), taught(tmp_path, None, 'train.optimizer="muon"')
    names = {parameter: name for name, parameter in learner.model.named_parameters()}
    adamw, muon = (
        {names[parameter] for group in optimizer.param_groups for parameter in group["params"]}
        for optimizer in make_optimizers(learner, recipe.train)
    )
    assert muon == {name for name in names.values() if "_proj" in name}
    assert len(muon) == 2 * (4 + 2)
    assert {"model.embed_tokens.weight", "model.layers.0.mlp.gate.weight"} < adamw


def test_matrices_of_experts_are_views_with_inputs_first(tmp_path: Path) -> None:
    learner = untrained(tmp_path)
    matrices = learner.expert_matrices()
    assert [tuple(matrix.shape) for matrix in matrices] == [(4, 16, 16), (4, 8, 16)] * 2
    experts = learner.model.model.layers[1].mlp.experts
    assert matrices[3].data_ptr() == experts.down_proj.data_ptr()
    assert torch.equal(matrices[3][2], experts.down_proj[2].t())


def test_changes_are_undone_and_each_one_shows(tmp_path: Path) -> None:
    learner = untrained(tmp_path)
    for matrix in learner.expert_matrices():
        matrix.data.mul_(20)  # experts that matter
    heldout = make_corpus(taught(tmp_path)).heldout(4)
    usual = cross_entropies(learner, heldout)
    changed = answers(learner, heldout)
    assert all(found != usual for found in changed.values())
    assert cross_entropies(learner, heldout) == usual


def test_the_card_has_quality_use_of_experts_and_what_the_hub_reads(tmp_path: Path) -> None:
    recipe, out = taught(tmp_path), tmp_path / "out"
    train(recipe, out, Quiet())
    card = appraise(recipe, out, cpu_seconds=90.0)
    assert list(card.heldout) == ["prose", "code", "records"]
    assert [(use.phase, use.layer) for use in card.uses] == [("score", "0"), ("score", "1")]
    assert set(card.uses[0].hot_jaccard) == {"prose / code", "prose / records", "code / records"}
    assert card.file_bytes == sum(len(content) for content in contents(out).values())
    text = render(card, "small")
    assert text.startswith("---\nlibrary_name: transformers\n")
    for part in ("# small", "moe, 2 layers", "16, 4, 8", "bits per byte", "CPU time", card.sha256, "int4 experts"):
        assert part in text
    assert "dense twin" not in text


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"vocab_size": 300}, "vocab_size is 300"),
        ({"bos_token_id": None}, "bos_token_id is None"),
        ({"max_position_embeddings": 20}, "max_position_embeddings is 20"),
        ({"model_type": "qwen3"}, "it is a dense model"),
        ({"model_type": "no-such-model"}, "no-such-model"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"model_type": "glm4_moe", "n_routed_experts": 4, "first_k_dense_replace": 0}, "not a router of softmax values"),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        train(taught(tmp_path, changes), tmp_path / "out", Quiet())
    assert str(caught.value).count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def test_a_folder_without_configuration_and_a_twin_are_refused(tmp_path: Path) -> None:
    recipe = taught(tmp_path)
    with pytest.raises(UsageError, match="no dense twin"):
        train(recipe, tmp_path / "out", Quiet(), twin=True)
    (tmp_path / "source" / "config.json").write_text("[]")
    with pytest.raises(UsageError, match=r"config\.json: it holds no object"):
        train(recipe, tmp_path / "out", Quiet())
    (tmp_path / "source" / "config.json").unlink()
    with pytest.raises(UsageError, match=r"no config\.json"):
        train(recipe, tmp_path / "out", Quiet())


def test_a_damaged_or_foreign_folder_has_no_card(tmp_path: Path) -> None:
    recipe, out = taught(tmp_path), tmp_path / "out"
    with pytest.raises(UsageError, match=r"no config\.json"):
        appraise(recipe, out)
    train(recipe, out, Quiet())
    with pytest.raises(UsageError, match="not trained with this recipe"):
        appraise(taught(tmp_path, {"num_experts_per_tok": 1}), out)
    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        appraise(taught(tmp_path), out)
    (out / "training.json").unlink()
    with pytest.raises(UsageError, match="not trained with this recipe"):
        appraise(taught(tmp_path), out)


TOKENIZER = byte_tokenizer(512)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(
    lambda text: not any(name in text for name in SPECIALS.values())
)


@settings(max_examples=200)
@given(TEXTS)
def test_the_tokenizer_has_the_ids_of_moeprof_s_and_gives_every_text_back(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert ids == ByteTokenizer().encode(text)
    assert TOKENIZER.decode(ids) == text


def test_the_name_of_a_special_token_is_that_token_as_in_other_tokenizers_of_transformers() -> None:
    assert TOKENIZER("".join(SPECIALS.values()), add_special_tokens=False).input_ids == list(SPECIALS)


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_ids_of_any_bytes_are_read_as_text_with_replacements(data: bytes) -> None:
    assert TOKENIZER.decode([4 + byte for byte in data]) == data.decode("utf-8", "replace")
