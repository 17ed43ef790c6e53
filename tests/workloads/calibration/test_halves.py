"""No document is in both halves, and every token of a document is in one sequence of its half."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.workloads.calibration.episodes import batches
from moeprof.workloads.calibration.halves import Half, halves
from moeprof.workloads.tokenizers import BOS, EOS, ByteTokenizer

Micro = Callable[[str], Path]


def recipe_of(micro: Micro, workload: str, *files: Path) -> Recipe:
    recipe = load_recipe(str(micro(workload)), [])
    given = [str(file) for file in files]
    data = recipe.data.model_copy(update={"files": {"own": given if len(given) > 1 else given[0]}} if given else {})
    return recipe.model_copy(update={"data": data})


def texts(half: Half, domain: str) -> list[str]:
    return [ByteTokenizer().decode(document) for document in half.documents[domain]]


def test_documents_of_a_file_are_divided_by_document(micro: Micro, tmp_path: Path) -> None:
    written = [f"document {number} of several words" for number in range(20)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in written))
    fit, judge = halves(recipe_of(micro, "lm", path), 10_000)
    assert (texts(fit, "own"), texts(judge, "own")) == (written[:16], written[16:])
    for half in (fit, judge):
        for number, document in enumerate(half.documents["own"]):
            cut = [excerpt.tokens for excerpt in half.excerpts if excerpt.document == number]
            assert all(tokens[0] == BOS and len(tokens) <= 12 for tokens in cut)
            assert [token for tokens in cut for token in tokens[1:]] == document
            assert document[-1] == EOS


def test_a_file_of_one_document_is_divided_into_parts(micro: Micro, tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("".join(f"{number:04}" for number in range(249)))
    fit, judge = halves(recipe_of(micro, "lm", path), 10_000)
    assert "".join([*texts(fit, "own"), *texts(judge, "own")]) == path.read_text()
    assert (fit.num_documents, judge.num_documents) == (40, 10)


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_of_the_default_text_no_document_is_in_both_halves_and_tokens_are_as_many_as_asked_for(
    micro: Micro, workload: str
) -> None:
    halved = halves(recipe_of(micro, workload), 2000)
    known, held = ({tuple(document) for found in half.documents.values() for document in found} for half in halved)
    assert not known & held
    for half, tokens in zip(halved, (2000, 500), strict=True):
        assert len(half.documents) == 3
        assert {sum(map(len, found)) for found in half.documents.values()} == {tokens}
    assert all(halved[0].hashes[domain] != halved[1].hashes[domain] for domain in halved[0].hashes)


def test_sources_of_translations_are_documents(micro: Micro, tmp_path: Path) -> None:
    for side in ("#", "b"):
        (tmp_path / side).write_text("".join(f"{side} {number}\n" for number in range(10)))
    fit, judge = halves(recipe_of(micro, "mt", tmp_path / "#", tmp_path / "b"), 10_000)
    assert (fit.num_documents, judge.num_documents) == (8, 2)
    assert judge.excerpts[1].tokens == judge.documents["own"][1] == [*(4 + byte for byte in b"# 9"), EOS]


def test_the_same_source_in_several_languages_is_one_document(micro: Micro) -> None:
    fit, _ = halves(recipe_of(micro, "mt"), 200)
    sources = {tuple(document) for found in fit.documents.values() for document in found}
    assert fit.num_documents == len(sources) < sum(map(len, fit.documents.values()))
    for excerpt in fit.excerpts:
        others = {other.document for other in fit.excerpts if other.tokens == excerpt.tokens}
        assert others == {excerpt.document}


def test_a_document_to_judge_by_that_is_also_one_to_fit_on_is_left_out(micro: Micro, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"

    def write(written: list[str]) -> None:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in written))

    write([*"abcdefgh", "a", "z"])
    fit, judge = halves(recipe_of(micro, "lm", path), 10_000)
    assert (texts(fit, "own"), texts(judge, "own")) == ([*"abcdefgh"], ["z"])
    write([*"abcdefgh", "a", "b"])
    with pytest.raises(UsageError, match="every document to judge by is also one to fit on"):
        halves(recipe_of(micro, "lm", path), 10_000)


def test_a_text_that_is_too_short_is_refused(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("abc")
    with pytest.raises(UsageError, match="data own: too few tokens"):
        halves(recipe_of(micro, "lm", tmp_path / "own.txt"), 100)


def test_batches_hold_every_sequence_once_with_the_number_of_its_excerpt(micro: Micro) -> None:
    excerpts = halves(recipe_of(micro, "mt"), 200)[0].excerpts
    seen = {}
    for batch in batches(excerpts, 4):
        assert len(batch.sequence_B) <= 4
        for row, number in enumerate(batch.sequence_B.tolist()):
            assert number not in seen
            seen[number] = batch.tokens_BL[row][batch.real_BL[row]].tolist()
            assert excerpts[number].domain == batch.domain
    assert seen == {number: excerpt.tokens for number, excerpt in enumerate(excerpts)}
