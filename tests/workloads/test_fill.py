"""[data] fill: sentences are joined until every source is full, so that a batch holds no padding and waste is E C / k."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.routing.capacity import StepSize, capacity_metrics
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.gating import expert_slots
from moeprof.workloads.corpora import MT_LANGUAGES
from moeprof.workloads.episodes import DecodeEpisode
from moeprof.workloads.registry import make_workload
from moeprof.workloads.tokenizers import EOS, FIRST_BYTE
from moeprof.workloads.translation import Translation, joined

Micro = Callable[[str], Path]


def workload_of(recipe: str, *overrides: str) -> Translation:
    workload = make_workload(load_recipe(recipe, overrides))
    assert isinstance(workload, Translation)
    return workload


def spelled(text: str) -> list[int]:
    return [FIRST_BYTE + ord(letter) for letter in text]


def lines(tmp_path: Path, *sources: str) -> str:
    """An override that makes these sentences the pair a-b."""
    for name, side in (("a", sources), ("b", ["x"] * len(sources))):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in side))
    return "data.files.a-b=" + json.dumps([str(tmp_path / "a"), str(tmp_path / "b")])


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), max_size=20), st.integers(1, 12))
def test_sentences_run_on_until_a_source_is_full_and_the_next_begins_with_a_new_sentence(
    sentences: list[list[int]], length: int
) -> None:
    found = list(joined(sentences, length))
    at = 0
    for together in found:
        first, used = at, 0
        while at < len(sentences) and used < len(together):
            used += len(sentences[at])
            at += 1
        assert together == [token for sentence in sentences[first:at] for token in sentence]
        assert len(together) >= length or len(found) == 1
        assert len(together) - len(sentences[at - 1]) < length  # no sentence more than was needed
    if len(found) > 1 or (found and len(found[0]) >= length):
        assert sum(map(len, sentences[at:])) < length  # what is left over would fill no source


def test_what_does_not_fill_one_source_is_kept_where_there_is_nothing_else() -> None:
    assert list(joined([[1], [2, 2]], 9)) == [[1, 2, 2]]
    assert list(joined([[1, 1], [2, 2], [3]], 4)) == [[1, 1, 2, 2]]
    assert list(joined([], 4)) == []


def test_every_source_is_cut_to_the_length_and_ends_with_eos(micro: Micro, tmp_path: Path) -> None:
    text = lines(tmp_path, "abc", "defghijkl", "mn", "opq", "rstu", "vwxyz")
    workload = workload_of(str(micro("mt")), "data.fill=true", "model.tokenizer=bytes", text, "load.batch_size=2")
    (batch,) = workload.batches
    assert batch.tokens_BL.tolist() == [[*spelled("abcdefghi"), EOS], [*spelled("mnopqrstu"), EOS]]
    assert batch.real_BL.all()


@pytest.mark.parametrize("name", ["mt-micro", "mt-small"])
def test_the_default_text_fills_every_source_of_every_batch(micro: Micro, name: str) -> None:
    workload = workload_of(str(micro("mt")) if name == "mt-micro" else name, "data.fill=true")
    load = workload.recipe.load
    for language in MT_LANGUAGES:
        batches = [batch for batch in workload.batches if batch.domain == language]
        assert [batch.tokens_BL.shape for batch in batches] == [(load.batch_size, load.sequence_length)] * load.batches
        assert all(batch.real_BL.all() for batch in batches)
        assert all((batch.tokens_BL[:, -1] == EOS).all() for batch in batches)


def test_statement_1_waste_of_the_papers_translation_gating_is_exactly_64_on_the_batches_of_mt_small() -> None:
    """E = 128, top-2, C = 1: E x ceil(C x S) over k x S, for S without padding."""
    workload = workload_of("mt-small")
    recipe = workload.recipe
    assert (recipe.model.experts, recipe.gating.top_k, recipe.gating.capacity_fraction, recipe.data.fill) == (128, 2, 1.0, True)
    sizes = [
        StepSize(batch.domain, batch.real_BL.size, int(batch.real_BL.sum()), expert_slots(128, 1.0, batch.real_BL.size))
        for batch in workload.batches
    ]
    metrics = capacity_metrics(recipe, "static", sizes)
    assert metrics["waste_factor"] == 64.0
    assert metrics["capacity"] == metrics["step_rows"] == 48 * 32
    assert metrics["expert_slots"] == 128 * 48 * 32


def test_without_fill_padding_is_wasted_too() -> None:
    workload = workload_of("mt-small", "data.fill=false")
    sizes = [
        StepSize(batch.domain, batch.real_BL.size, int(batch.real_BL.sum()), expert_slots(128, 1.0, batch.real_BL.size))
        for batch in workload.batches
    ]
    rows, tokens = sum(size.rows for size in sizes), sum(size.tokens for size in sizes)
    assert rows > 1.2 * tokens
    assert capacity_metrics(workload.recipe, "static", sizes)["waste_factor"] == pytest.approx(64 * rows / tokens)


def test_a_joined_source_has_no_reference_to_be_held_against(micro: Micro) -> None:
    for fill, references in (("true", 0), ("false", 3)):
        workload = workload_of(str(micro("mt")), f"data.fill={fill}")
        for episode in workload.episodes("decode"):
            assert isinstance(episode, DecodeEpisode)
            assert len(episode.sources) == references


def test_a_bound_on_tokens_holds_for_joined_sources_too(micro: Micro, tmp_path: Path) -> None:
    text = lines(tmp_path, *["abcd"] * 40)
    overrides = ("data.fill=true", "model.tokenizer=bytes", text, "load.batch_size=1", "load.batches=6")
    workload = workload_of(str(micro("mt")), *overrides, "data.max_tokens=35")
    assert [batch.tokens_BL.shape for batch in workload.batches] == [(1, 10)] * 3
