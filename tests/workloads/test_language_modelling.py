"""The LM workload: text cut into sequences, domains kept apart, decoding behind a prompt."""

import gzip
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moeprof.instrument.probe import observed_by
from moeprof.instrument.step import make_step
from moeprof.models.build import build_model
from moeprof.moe.forced import make_forced_routing
from moeprof.moe.layer import force_routing, moe_layers
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.workloads.corpora import LM_DOMAINS
from moeprof.workloads.episodes import DecodeEpisode, num_tokens
from moeprof.workloads.language_modelling import LanguageModelling, sequences
from moeprof.workloads.registry import make_workload
from moeprof.workloads.text import Text
from moeprof.workloads.tokenizers import BOS, EOS, FIRST_BYTE, ByteTokenizer

from .decisions import Decided, played, record, settled

Micro = Callable[[str], Path]


def workload_of(micro: Micro, *overrides: str) -> LanguageModelling:
    """The workload of the small recipe: 2 batches of 2 sequences of 12 bytes, prompts of 5, 3 decode steps."""
    workload = make_workload(recipe_of(micro, *overrides))
    assert isinstance(workload, LanguageModelling)
    return workload


def recipe_of(micro: Micro, *overrides: str) -> Recipe:
    return load_recipe(str(micro("lm")), overrides)


def text_file(tmp_path: Path, name: str, text: str) -> str:
    """An override that makes a file the domain of its stem."""
    (tmp_path / name).write_text(text)
    return f"data.files.{Path(name).stem}={tmp_path / name}"


def text_of(workload: LanguageModelling, domain: str) -> str:
    """What the batches of a domain say."""
    tokens = [
        batch.tokens_BL[row][batch.real_BL[row]]
        for batch in workload.batches
        for row in range(len(batch.tokens_BL))
        if batch.domain == domain
    ]
    return workload.tokenizer.decode(np.concatenate(tokens).tolist())


# Sequences


@given(st.lists(st.text("abc", max_size=9), min_size=1, max_size=5), st.integers(2, 6), st.integers(1, 30))
def test_documents_run_on_behind_one_another_and_are_cut_to_sequences(
    documents: list[str], length: int, max_tokens: int
) -> None:
    stream = list(chain.from_iterable([*(FIRST_BYTE + ord(letter) for letter in text), EOS] for text in documents))
    cut = sequences(Text("prose", documents, ""), ByteTokenizer(), length, max_tokens)
    assert all(sequence[0] == BOS for sequence in cut)
    assert all(len(sequence) == length for sequence in cut[:-1])
    found = [token for sequence in cut for token in sequence[1:]]
    assert found == stream[: len(found)]
    usable = min(len(stream), max_tokens)
    whole = usable // (length - 1)
    assert len(found) == (whole * (length - 1) if whole else usable)


def test_a_remainder_is_kept_only_where_there_is_nothing_else() -> None:
    text = Text("prose", ["abcdefg"], "")
    assert [len(sequence) for sequence in sequences(text, ByteTokenizer(), 4, 100)] == [4, 4]
    assert [len(sequence) for sequence in sequences(text, ByteTokenizer(), 20, 100)] == [9]


def test_at_most_max_tokens_of_every_domain_are_read(micro: Micro, tmp_path: Path) -> None:
    files = [text_file(tmp_path, name, "x" * 1000) for name in ("one.txt", "two.txt")]
    workload = workload_of(micro, *files, "data.max_tokens=25")
    tokens = {batch.domain: int(batch.real_BL.sum()) - len(batch.tokens_BL) for batch in workload.batches}
    assert tokens == {"one": 22, "two": 22}


def test_a_bound_below_one_sequence_leaves_one_short_sequence(micro: Micro, tmp_path: Path) -> None:
    workload = workload_of(micro, text_file(tmp_path, "one.txt", "x" * 1000), "data.max_tokens=3")
    assert [batch.tokens_BL.tolist() for batch in workload.batches] == [[[BOS] + [FIRST_BYTE + ord("x")] * 3]]


# Domains and files


def test_several_files_are_several_domains_kept_apart(micro: Micro, tmp_path: Path) -> None:
    workload = workload_of(
        micro, text_file(tmp_path, "wiki.txt", "w" * 200), text_file(tmp_path, "code.txt", "c" * 200), "load.batches=3"
    )
    assert [batch.domain for batch in workload.batches] == ["wiki"] * 3 + ["code"] * 3
    assert [batch.index for batch in workload.batches] == list(range(6))
    assert set(text_of(workload, "wiki")) == {"w"}
    assert set(text_of(workload, "code")) == {"c"}
    numbers = np.concatenate([batch.sequence_B for batch in workload.batches]).tolist()
    assert numbers == list(range(12))
    assert workload.text_hashes.keys() == {"wiki", "code"}
    assert len(set(workload.text_hashes.values())) == 2
    for phase in ("score", "decode"):
        assert [episode.domain for episode in workload.episodes(phase)] == ["wiki"] * 3 + ["code"] * 3


def test_text_comes_from_txt_jsonl_gz_and_folders(micro: Micro, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ("aaaa", "bbbb"))
    (tmp_path / "plain.txt").write_text("aaaabbbb")
    (tmp_path / "lines.jsonl").write_text(lines)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.txt").write_text("aaaa")
    (tmp_path / "folder" / "2.txt").write_text("bbbb")
    names = {"plain": "plain.txt", "lines": "lines.jsonl", "packed": "packed.jsonl.gz", "folder": "folder"}
    workload = workload_of(micro, *(f"data.files.{name}={tmp_path / path}" for name, path in names.items()))
    first = {batch.domain: batch.tokens_BL[0][batch.real_BL[0]].tolist() for batch in workload.batches}
    a, b = ([FIRST_BYTE + ord(letter)] * 4 for letter in "ab")
    assert first["plain"] == [BOS, *a, *b, EOS]
    assert first["lines"] == first["packed"] == first["folder"] == [BOS, *a, EOS, *b, EOS]


def test_every_byte_of_any_script_is_a_token_of_the_vocabulary(micro: Micro, tmp_path: Path) -> None:
    text = "नेपाली ひらがな \u0000\u007f émoji 🦉 " * 9
    workload = workload_of(micro, text_file(tmp_path, "all.txt", text))
    assert text.encode().startswith(text_of(workload, "all").encode()[:-4])
    assert all(batch.tokens_BL.max() < 260 for batch in workload.batches)


@pytest.mark.parametrize("problem", ["missing", "empty", "latin"])
def test_a_file_that_cannot_be_used_is_named(micro: Micro, tmp_path: Path, problem: str) -> None:
    path = tmp_path / "wiki.txt"
    if problem != "missing":
        path.write_bytes({"empty": b"", "latin": b"caf\xe9"}[problem])
    with pytest.raises(UsageError, match=r"data wiki: .*wiki\.txt") as caught:
        workload_of(micro, f"data.files.wiki={path}")
    assert str(caught.value).count("\n") == 1


def test_an_unknown_default_domain_is_named_beside_the_known(micro: Micro) -> None:
    with pytest.raises(UsageError, match="unknown default domain 'poetry'") as caught:
        workload_of(micro, 'data.domains=["prose", "poetry"]')
    assert all(domain in caught.value.remedy for domain in LM_DOMAINS)


def test_the_default_text_gives_the_domains_asked_for(micro: Micro) -> None:
    assert list(workload_of(micro).text_hashes) == list(LM_DOMAINS)
    assert list(workload_of(micro, 'data.domains=["code"]').text_hashes) == ["code"]


@pytest.mark.parametrize("name", ["lm-tiny", "lm-small"])
def test_the_default_text_is_long_enough_for_all_batches_of_every_domain(name: str) -> None:
    recipe = load_recipe(name)
    workload = LanguageModelling(recipe)
    for domain in LM_DOMAINS:
        shapes = [batch.tokens_BL.shape for batch in workload.batches if batch.domain == domain]
        assert shapes == [(recipe.load.batch_size, recipe.load.sequence_length)] * recipe.load.batches, domain


@pytest.mark.parametrize("word", ["a ", "indented    " * 3, "Donaudampfschifffahrtsgesellschaft "])
def test_a_long_text_fills_all_batches_however_long_its_words_are(micro: Micro, tmp_path: Path, word: str) -> None:
    text = text_file(tmp_path, "long.txt", word * 2000)
    workload = workload_of(micro, text, "model.tokenizer=hashed", "model.vocab_size=300")
    assert [batch.tokens_BL.shape for batch in workload.batches] == [(2, 12)] * 2


def test_the_same_recipe_gives_the_same_batches(micro: Micro) -> None:
    one, other = workload_of(micro), workload_of(micro)
    assert one.text_hashes == other.text_hashes
    for first, second in zip(one.batches, other.batches, strict=True):
        assert np.array_equal(first.tokens_BL, second.tokens_BL)


@pytest.mark.parametrize(("padding", "length"), [("longest", 6), ("fixed", 12)])
def test_a_batch_is_padded_as_the_recipe_says(micro: Micro, tmp_path: Path, padding: str, length: int) -> None:
    workload = workload_of(micro, text_file(tmp_path, "short.txt", "abcd"), f"gating.padding={padding}")
    (batch,) = workload.batches
    assert batch.tokens_BL.shape == (1, length)
    assert num_tokens(workload.episodes("score")[0]) == 6


# Decoding


def decode_episodes(workload: LanguageModelling) -> list[DecodeEpisode]:
    episodes = workload.episodes("decode")
    assert all(isinstance(episode, DecodeEpisode) for episode in episodes)
    return episodes  # type: ignore[return-value]


@pytest.mark.parametrize("padding", ["longest", "fixed"])
def test_text_shorter_than_the_prompt_is_scored_but_not_continued(micro: Micro, tmp_path: Path, padding: str) -> None:
    files = [text_file(tmp_path, "short.txt", "ab"), text_file(tmp_path, "long.txt", "x" * 100)]
    workload = workload_of(micro, *files, f"gating.padding={padding}")
    assert [episode.domain for episode in workload.episodes("score")] == ["short", "long", "long"]
    assert [episode.domain for episode in workload.episodes("decode")] == ["long", "long"]


def test_decoding_begins_behind_the_prompt_and_takes_all_its_steps(micro: Micro) -> None:
    recipe = recipe_of(micro)
    model = build_model(recipe)
    episodes = decode_episodes(workload_of(micro))
    for number, episode in enumerate(episodes):
        settled(episode, model)
        assert [step.index for step in episode.steps] == [3 * number, 3 * number + 1, 3 * number + 2]
        assert [step.position_T.tolist() for step in episode.steps if step.position_T is not None] == [
            [5] * 2,
            [6] * 2,
            [7] * 2,
        ]
        assert num_tokens(episode) == 6


def test_greedy_tokens_are_those_of_full_passes_over_everything_so_far(micro: Micro) -> None:
    recipe = recipe_of(micro, "gating.capacity_fraction=1.0")
    model, workload = build_model(recipe), workload_of(micro)
    episode = decode_episodes(workload)[0]
    settled(episode, model)
    tokens_BL = torch.from_numpy(workload.batches[0].tokens_BL[:, :5])
    for fed_B in episode.tokens_NB:
        step = make_step("score", 0, "", tokens_BL.numpy(), np.ones(tokens_BL.shape, bool), np.arange(2), 0, "cpu")
        chosen_B = model(tokens_BL, step)[:, -1].argmax(dim=1)
        assert fed_B.tolist() == chosen_B.tolist()
        tokens_BL = torch.cat([tokens_BL, chosen_B[:, None]], dim=1)


def test_teacher_forced_rounds_route_as_the_greedy_ones_did(micro: Micro) -> None:
    model = build_model(recipe_of(micro))
    for episode in decode_episodes(workload_of(micro)):
        greedy = {key: experts for key, experts in settled(episode, model).items() if key[0] == "decode"}
        assert len(greedy) == 3
        assert played(episode, model) == greedy


def test_a_decoded_token_is_routed_as_in_a_full_pass(micro: Micro) -> None:
    recipe = recipe_of(micro, "gating.capacity_fraction=1.0")
    model, workload, decided = build_model(recipe), workload_of(micro), Decided()
    episode = decode_episodes(workload)[0]
    settled(episode, model)
    found = played(episode, model)
    tokens = np.concatenate([workload.batches[0].tokens_BL[:, :5], torch.stack(episode.tokens_NB, dim=1).numpy()], axis=1)
    step = make_step("score", 0, "", tokens, np.ones(tokens.shape, bool), np.arange(2), 0, "cpu")
    with observed_by(decided):
        model(torch.from_numpy(tokens), step)
    whole = np.array(decided.experts["score", 0, "1"]).reshape(2, 8, 2)
    assert [found["decode", index, "1"] for index in range(3)] == [whole[:, 5 + index].tolist() for index in range(3)]


@pytest.mark.parametrize("phase", ["score", "decode"])
def test_a_run_can_be_replayed_from_the_traces_it_left(micro: Micro, tmp_path: Path, phase: str) -> None:
    """In `decode` the prompts are read first; they are the beginnings of the sequences that `score` recorded."""
    recipe, workload = recipe_of(micro), workload_of(micro)
    model = build_model(recipe)
    for recorded in ("score", "decode"):
        record(recipe, recorded, workload.episodes(recorded), model, tmp_path)
    episode = workload.episodes(phase)[0]
    settled(episode, model)
    own = played(episode, model)
    force_routing(model, make_forced_routing(recipe_of(micro, f"routing.source=trace:{tmp_path}")))
    for layer in moe_layers(model):
        layer.router.weight.zero_()
    assert played(episode, model) == own
