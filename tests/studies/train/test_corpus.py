"""Lessons come from all domains, in an order that the seed decides, and never from what is held out."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from moeprof.records.errors import UsageError
from moeprof.studies.train.corpus import make_corpus
from moeprof.studies.train.lessons import Lesson
from moeprof.workloads.corpora import lm_text, mt_pairs
from moeprof.workloads.documentation import documentation
from moeprof.workloads.tokenizers import BOS, EOS, FIRST_BYTE, PAD, make_tokenizer
from tests.workloads.documentation.releases import PAGES, stored_guide

from .lessons import Micro, brief


def text_of(tokens_L: torch.Tensor) -> str:
    """Bytes back to text, specials left out."""
    return bytes(token - FIRST_BYTE for token in tokens_L.tolist() if token >= FIRST_BYTE).decode()


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_a_lesson_depends_on_seed_and_number_alone(micro: Micro, workload: str) -> None:
    one, same, other = (make_corpus(brief(micro, workload, f"train.seed={seed}")) for seed in (0, 0, 1))
    assert torch.equal(one.lesson(7).tokens_BL, same.lesson(7).tokens_BL)
    assert not torch.equal(one.lesson(7).tokens_BL, one.lesson(8).tokens_BL)
    assert not torch.equal(one.lesson(7).tokens_BL, other.lesson(7).tokens_BL)


def test_windows_are_pieces_of_the_training_text_behind_bos(micro: Micro) -> None:
    corpus = make_corpus(brief(micro, "lm", "train.batch_size=30"))
    domains = {domain: lm_text(domain, "train", 4000) for domain in ("prose", "code", "records")}
    lesson = corpus.lesson(0)
    assert lesson.tokens_BL.shape == (30, 23)
    assert lesson.tokens_BL[:, 0].eq(BOS).all()
    found = [[domain for domain, text in domains.items() if text_of(row) in text] for row in lesson.tokens_BL]
    assert all(found)
    assert {domain for domains_of_row in found for domain in domains_of_row} == set(domains)
    assert torch.equal(lesson.targets_BL[:, :-1], lesson.tokens_BL[:, 1:])


def test_held_out_windows_are_those_of_the_held_out_text(micro: Micro) -> None:
    held = make_corpus(brief(micro, "lm")).heldout(3)
    assert list(held) == ["prose", "code", "records"]
    joined = "".join(text_of(row) for row in held["code"].targets_BL)
    assert joined == lm_text("code", "heldout", 3 * 23)


def test_pairs_carry_the_tag_of_their_language_and_end_with_eos(micro: Micro) -> None:
    recipe = brief(micro, "mt", "train.sequence_length=40")
    lesson, tokenizer = make_corpus(recipe).lesson(0), make_tokenizer("words", 2560)
    pairs = {language: set(mt_pairs(language, "train", 60)) for language in ("solvan", "dorvek", "imbari")}
    tags = {tokenizer.tag(language): language for language in pairs}
    assert lesson.source_BM is not None
    for source_M, tokens_L, targets_L in zip(lesson.source_BM, lesson.tokens_BL, lesson.targets_BL, strict=True):
        language = tags[int(tokens_L[0])]
        assert (tokenizer.decode(source_M.tolist()), tokenizer.decode(tokens_L.tolist())) in pairs[language]
        assert int(source_M[source_M.ne(PAD)][-1]) == int(targets_L[targets_L.ge(0)][-1]) == EOS


def test_the_last_tenth_of_a_file_is_held_out(micro: Micro, tmp_path: Path) -> None:
    text = "".join(f"line {number:04d}\n" for number in range(400))
    (tmp_path / "mine.txt").write_text(text)
    corpus = make_corpus(brief(micro, "lm", f'data.files.mine="{tmp_path / "mine.txt"}"', "train.corpus_size=10000"))
    held = text_of(corpus.heldout(1)["mine"].targets_BL[0])
    assert text.index(held) >= 0.89 * len(text)
    latest = max(text.index(text_of(row)) for number in range(50) for row in corpus.lesson(number).tokens_BL)
    assert latest + 23 <= 0.91 * len(text)


def test_the_last_tenth_of_the_pairs_is_held_out(micro: Micro, tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("".join(f"{path.name}{number}\n" for number in range(20)))
    files = f"data.files.x-y={json.dumps([str(path) for path in paths])}"
    held = make_corpus(brief(micro, "mt", files)).heldout(10)["x-y"].source_BM
    assert held is not None
    assert [text_of(row) for row in held] == ["a18", "a19"]


def test_documentation_is_a_domain_of_its_own_share(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_guide(tmp_path, monkeypatch, PAGES)
    sets = ('train.documentation="guide==1.0"', "train.documentation_share=0.8", "train.batch_size=400")
    corpus, without = make_corpus(brief(micro, "lm", *sets)), make_corpus(brief(micro, "lm", sets[2]))
    rows = [text_of(row) for row in corpus.lesson(0).tokens_BL]
    pages = "".join(documentation("guide==1.0", "train"))
    assert 0.74 <= sum(row in pages for row in rows) / len(rows) <= 0.86
    usual = [lm_text(domain, "train", 4000) for domain in ("prose", "code", "records")]
    assert all(any(row in text for text in (pages, *usual)) for row in rows)
    assert list(corpus.hashes) == ["prose", "code", "records", "documentation"]
    written = b"".join(page.encode() + b"\0" for page in documentation("guide==1.0", "train"))
    assert corpus.hashes["documentation"] == hashlib.sha256(written).hexdigest()
    assert without.hashes == {domain: found for domain, found in corpus.hashes.items() if domain != "documentation"}
    held = text_of(corpus.heldout(1)["documentation"].targets_BL[0])
    assert "".join(documentation("guide==1.0", "heldout")).startswith(held)


def test_the_share_of_documentation_changes_after_its_steps_and_no_earlier_batch_does(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_guide(tmp_path, monkeypatch, PAGES)
    sets = ('train.documentation="guide==1.0"', "train.documentation_share=0.8", "train.batch_size=400")
    later = ("train.documentation_steps=2", "train.documentation_later_share=0.2")
    always, first = make_corpus(brief(micro, "lm", *sets)), make_corpus(brief(micro, "lm", *sets, *later))
    pages = "".join(documentation("guide==1.0", "train"))
    shares = [sum(text_of(row) in pages for row in first.lesson(number).tokens_BL) / 400 for number in range(4)]
    assert shares == pytest.approx([0.8, 0.8, 0.2, 0.2], abs=0.06)
    assert torch.equal(first.lesson(1).tokens_BL, always.lesson(1).tokens_BL)


def without_and_with(micro: Micro, key: str) -> tuple[Lesson, Lesson, torch.Tensor]:
    """The same large lesson with a share of 0 and of 0.3 under a key, and which of its rows are from the documentation."""
    sets = ('train.documentation="guide==1.0"', "train.batch_size=400")
    plain, disturbed = (make_corpus(brief(micro, "lm", *sets, f"train.{key}={share}")).lesson(0) for share in (0.0, 0.3))
    pages = "".join(documentation("guide==1.0", "train"))
    return plain, disturbed, torch.tensor([text_of(row) in pages for row in plain.tokens_BL])


def test_noise_replaces_its_share_of_the_documentation_s_input_and_no_target(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_guide(tmp_path, monkeypatch, PAGES)
    clean, noisy, documented = without_and_with(micro, "documentation_noise")
    assert torch.equal(clean.targets_BL, noisy.targets_BL)
    changed = clean.tokens_BL.ne(noisy.tokens_BL)
    assert not changed[~documented].any()
    assert not changed[:, 0].any()
    assert 0.25 <= changed[documented, 1:].float().mean() <= 0.31  # some tokens are replaced by the same
    assert set(text_of(noisy.tokens_BL[documented].flatten())) <= set("".join(documentation("guide==1.0", "train")))


def test_smoothing_replaces_its_share_of_the_documentation_s_targets_and_no_input(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_guide(tmp_path, monkeypatch, PAGES)
    plain, smooth, documented = without_and_with(micro, "documentation_smoothing")
    assert torch.equal(plain.tokens_BL, smooth.tokens_BL)
    changed = plain.targets_BL.ne(smooth.targets_BL)
    assert not changed[~documented].any()
    assert 0.25 <= changed[documented].float().mean() <= 0.31  # some targets are replaced by the same
    assert set(text_of(smooth.targets_BL[documented].flatten())) <= set("".join(documentation("guide==1.0", "train")))


def test_files_with_too_little_text_are_refused(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short to learn from")
    with pytest.raises(UsageError, match="data mine: too small"):
        make_corpus(brief(micro, "lm", f'data.files.mine="{tmp_path / "short.txt"}"'))
