"""The MT workload: sentences encoded in batches, translations that begin with a tag and end at EOS."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moeprof.instrument.step import Step
from moeprof.models.build import build_model
from moeprof.models.translation_model import TranslationModel
from moeprof.moe.forced import make_forced_routing
from moeprof.moe.layer import force_routing, moe_layers
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.workloads.corpora import MT_LANGUAGES
from moeprof.workloads.episodes import DecodeEpisode, num_tokens
from moeprof.workloads.registry import make_workload
from moeprof.workloads.tokenizers import ANY_LANGUAGE, EOS, FIRST_BYTE, PAD
from moeprof.workloads.translation import Translation

from .decisions import played, record, settled

Micro = Callable[[str], Path]


def recipe_of(micro: Micro, *overrides: str) -> Recipe:
    """2 batches of 3 sentences of at most 10 tokens, 4 decode steps."""
    return load_recipe(str(micro("mt")), overrides)


def workload_of(micro: Micro, *overrides: str) -> Translation:
    workload = make_workload(recipe_of(micro, *overrides))
    assert isinstance(workload, Translation)
    return workload


def pair_of_files(tmp_path: Path, name: str, sources: list[str], targets: list[str] | None = None) -> str:
    """An override that makes two line-aligned files the language pair `name`."""
    paths = [tmp_path / f"{name}.source", tmp_path / f"{name}.target"]
    for path, lines in zip(paths, (sources, targets or ["x"] * len(sources)), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines))
    return f"data.files.{name}=" + json.dumps([str(path) for path in paths])


def letters(text: str) -> list[int]:
    return [FIRST_BYTE + ord(letter) for letter in text]


def decode_episodes(workload: Translation) -> list[DecodeEpisode]:
    episodes = workload.episodes("decode")
    assert all(isinstance(episode, DecodeEpisode) for episode in episodes)
    return episodes  # type: ignore[return-value]


BYTES = "model.tokenizer=bytes"


# Sentences


def test_a_sentence_ends_with_eos_and_shorter_ones_are_padded(micro: Micro, tmp_path: Path) -> None:
    (batch,) = workload_of(micro, BYTES, pair_of_files(tmp_path, "a-b", ["abc", "a", "ab"])).batches
    assert batch.tokens_BL.tolist() == [[*letters("abc"), EOS], [*letters("a"), EOS, PAD, PAD], [*letters("ab"), EOS, PAD]]
    assert batch.real_BL.sum(axis=1).tolist() == [4, 2, 3]


def test_a_long_sentence_is_split_and_every_piece_ends_with_eos(micro: Micro, tmp_path: Path) -> None:
    (batch,) = workload_of(micro, BYTES, pair_of_files(tmp_path, "a-b", ["xxxx xxxx yyyyyyyyy", "z" * 9])).batches
    assert batch.tokens_BL.tolist() == [[*letters(piece), EOS] for piece in ("xxxx xxxx", "y" * 9, "z" * 9)]


@pytest.mark.parametrize(("padding", "length"), [("longest", 4), ("fixed", 10)])
def test_a_batch_is_padded_as_the_recipe_says(micro: Micro, tmp_path: Path, padding: str, length: int) -> None:
    files = pair_of_files(tmp_path, "a-b", ["abc", "a", "ab"])
    workload = workload_of(micro, BYTES, files, f"gating.padding={padding}")
    assert workload.batches[0].tokens_BL.shape == (3, length)
    assert num_tokens(workload.episodes("encode")[0]) == 9


def test_only_as_many_sentences_as_batches_hold_are_read(micro: Micro, tmp_path: Path) -> None:
    workload = workload_of(micro, BYTES, pair_of_files(tmp_path, "a-b", [str(number) * 3 for number in range(9)]))
    first = [letters(str(number) * 3) for number in range(6)]
    assert [row[:3] for batch in workload.batches for row in batch.tokens_BL.tolist()] == first


@pytest.mark.parametrize(("bound", "tokens"), [(1000, 24), (23, 20), (9, 8), (8, 8), (7, 4)])
def test_at_most_max_tokens_of_every_language_are_read_in_whole_sentences(
    micro: Micro, tmp_path: Path, bound: int, tokens: int
) -> None:
    files = [pair_of_files(tmp_path, name, ["abc"] * 6) for name in ("a-b", "a-c")]
    workload = workload_of(micro, BYTES, *files, f"data.max_tokens={bound}", "load.batch_size=1", "load.batches=6")
    for domain in ("a-b", "a-c"):
        assert sum(int(batch.real_BL.sum()) for batch in workload.batches if batch.domain == domain) == tokens


def test_one_sentence_is_read_whatever_the_bound(micro: Micro, tmp_path: Path) -> None:
    (batch,) = workload_of(micro, BYTES, pair_of_files(tmp_path, "a-b", ["abc"] * 6), "data.max_tokens=1").batches
    assert len(batch.tokens_BL) == 1


# Languages and files


def test_several_pairs_of_files_are_several_languages_kept_apart(micro: Micro, tmp_path: Path) -> None:
    files = [pair_of_files(tmp_path, f"en-{letter}", [letter * 5] * 6) for letter in ("p", "q")]
    workload = workload_of(micro, BYTES, *files)
    assert [batch.domain for batch in workload.batches] == ["en-p"] * 2 + ["en-q"] * 2
    for batch in workload.batches:
        assert set(batch.tokens_BL.flatten().tolist()) == {FIRST_BYTE + ord(batch.domain[-1]), EOS}
    assert np.concatenate([batch.sequence_B for batch in workload.batches]).tolist() == list(range(12))
    assert workload.text_hashes.keys() == {"en-p", "en-q"}
    assert len(set(workload.text_hashes.values())) == 2
    for phase in ("encode", "decode"):
        assert [episode.domain for episode in workload.episodes(phase)] == ["en-p"] * 2 + ["en-q"] * 2


def test_sentences_come_from_jsonl_with_translation_objects_too(micro: Micro, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"translation": {"en": text, "fr": "x"}}) + "\n" for text in ("abc", "a", "ab")))
    from_lines = workload_of(micro, BYTES, f"data.files.en-fr={path}")
    from_files = workload_of(micro, BYTES, pair_of_files(tmp_path, "en-fr", ["abc", "a", "ab"]))
    assert from_lines.text_hashes == from_files.text_hashes
    assert np.array_equal(from_lines.batches[0].tokens_BL, from_files.batches[0].tokens_BL)


def test_files_of_unequal_length_are_named_with_both_counts(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has 3 lines, .* has 2") as caught:
        workload_of(micro, pair_of_files(tmp_path, "a-b", ["a", "b", "c"], ["x", "y"]))
    assert str(caught.value).count("\n") == 1


def test_an_unknown_default_language_is_named_beside_the_known(micro: Micro) -> None:
    with pytest.raises(UsageError, match="unknown default language 'klingon'") as caught:
        workload_of(micro, 'data.domains=["klingon"]')
    assert all(language in caught.value.remedy for language in MT_LANGUAGES)


def test_the_default_text_gives_the_languages_asked_for_and_fills_all_batches(micro: Micro) -> None:
    workload = workload_of(micro)
    assert list(workload.text_hashes) == list(MT_LANGUAGES)
    for language in MT_LANGUAGES:
        assert [len(batch.tokens_BL) for batch in workload.batches if batch.domain == language] == [3, 3]
    assert list(workload_of(micro, f'data.domains=["{MT_LANGUAGES[1]}"]').text_hashes) == [MT_LANGUAGES[1]]


# Decoding


def test_translations_begin_with_the_tag_of_their_language_at_position_0(micro: Micro, tmp_path: Path) -> None:
    own = [pair_of_files(tmp_path, f"en-{MT_LANGUAGES[0]}", ["abc"] * 3), pair_of_files(tmp_path, "en-xx", ["abc"] * 3)]
    workload = workload_of(micro, *own)
    model = build_model(recipe_of(micro))
    firsts = []
    for episode in decode_episodes(workload):
        settled(episode, model)
        firsts.append(episode.tokens_NB[0].tolist())
        assert episode.steps[0].position_T is not None
        assert episode.steps[0].position_T.tolist() == [0] * 3
    tag = workload.tokenizer.tag(MT_LANGUAGES[0])
    assert tag != ANY_LANGUAGE
    assert firsts == [[tag] * 3, [ANY_LANGUAGE] * 3]


def test_decode_steps_of_all_batches_have_numbers_of_their_own(micro: Micro) -> None:
    model = build_model(recipe_of(micro))
    numbers: list[int] = []
    for episode in decode_episodes(workload_of(micro)):
        settled(episode, model)
        numbers += [step.index for step in episode.steps]
    assert len(set(numbers)) == len(numbers)


def test_greedy_translations_are_those_of_full_passes_over_everything_so_far(micro: Micro) -> None:
    model, workload = build_model(recipe_of(micro)), workload_of(micro)
    assert isinstance(model, TranslationModel)
    episode, source = decode_episodes(workload)[0], workload.batches[0]
    settled(episode, model)
    (encoded,) = workload.episodes("encode")[0].steps
    memory = model.remember(model.encode(torch.from_numpy(source.tokens_BL), encoded), encoded)
    for position in range(1, len(episode.tokens_NB)):
        target_BL = torch.stack(episode.tokens_NB[:position], dim=1)
        chosen_B = model(target_BL, memory, Step(real_T=None))[:, -1].argmax(dim=1)
        assert episode.tokens_NB[position].tolist() == chosen_B.tolist()


def test_teacher_forced_rounds_route_as_the_greedy_ones_did(micro: Micro) -> None:
    model = build_model(recipe_of(micro))
    for episode in decode_episodes(workload_of(micro)):
        greedy = {key: experts for key, experts in settled(episode, model).items() if key[0] == "decode"}
        assert len(greedy) == len(episode.steps)
        assert played(episode, model) == greedy


def test_a_translation_that_ends_is_padding_that_nobody_routes(micro: Micro) -> None:
    """EOS gets a large embedding, so that some sentences end at once, some later and some not at all."""
    model, workload = (
        build_model(recipe_of(micro)),
        workload_of(micro, "load.batch_size=12", "load.batches=1", "load.decode_steps=6"),
    )
    model.embedding.weight[EOS] *= 2.5
    endings: list[int] = []
    for episode in decode_episodes(workload):
        settled(episode, model)
        routed = played(episode, model)
        running_NB = np.array([[True] * 12 if step.real_T is None else step.real_T.tolist() for step in episode.steps])
        fed_NB = torch.stack(episode.tokens_NB).numpy()
        assert running_NB[0].all()
        assert not (running_NB[1:] & ~running_NB[:-1]).any()
        assert (fed_NB[~running_NB] == PAD).all()
        assert (fed_NB[1:][running_NB[1:]] != EOS).all()
        for step, running_B in zip(episode.steps, running_NB, strict=True):
            assert [bool(mine) for mine in routed["decode", step.index, "dec.1"]] == running_B.tolist()
        assert num_tokens(episode) == running_NB.sum()
        endings += running_NB.sum(axis=0).tolist()
    assert len(set(endings)) > 2


@pytest.mark.parametrize("phase", ["encode", "decode"])
def test_a_run_can_be_replayed_from_the_traces_it_left(micro: Micro, tmp_path: Path, phase: str) -> None:
    recipe, workload = recipe_of(micro), workload_of(micro)
    model = build_model(recipe)
    for recorded in ("encode", "decode"):
        record(recipe, recorded, workload.episodes(recorded), model, tmp_path)
    episode = workload.episodes(phase)[0]
    settled(episode, model)
    own = played(episode, model)
    force_routing(model, make_forced_routing(recipe_of(micro, f"routing.source=trace:{tmp_path}")))
    for layer in moe_layers(model):
        layer.router.weight.zero_()
    assert played(episode, model) == own
