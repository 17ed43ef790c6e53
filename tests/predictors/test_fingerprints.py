"""Text is recognised wherever it is cut; other text of the same kind is not."""

import numpy as np
import pytest

from moeprof.predictors.fingerprints import MAX_KNOWN, fingerprints, known_share, windows
from moeprof.workloads.corpora import LM_DOMAINS, lm_documents, lm_text
from moeprof.workloads.tokenizers import ByteTokenizer

CUT = 63


def documents(count: int, length: int, seed: int = 0) -> list[list[int]]:
    return np.random.default_rng(seed).integers(4, 260, size=(count, length)).tolist()


def cut(tokens: list[int], offset: int) -> list[list[int]]:
    """Sequences as a workload cuts them, each after BOS."""
    return [[1, *tokens[start : start + CUT]] for start in range(offset, len(tokens), CUT)]


@pytest.mark.parametrize("offset", [0, 1, 17, 50])
def test_a_text_is_known_whatever_its_offset(offset: int) -> None:
    fitted = documents(5, 1000)
    assert known_share(fingerprints(fitted), cut(fitted[2], offset)) > 0.9
    assert known_share(fingerprints(fitted), cut(documents(1, 1000, seed=1)[0], offset)) == 0


def test_a_text_of_which_every_second_sequence_is_known_is_known_by_half() -> None:
    fitted, other = documents(1, 63 * 40)[0], documents(1, 63 * 40, seed=1)[0]
    mixed = [
        sequences[0] if number % 2 else sequences[1]
        for number, sequences in enumerate(zip(cut(fitted, 0), cut(other, 0), strict=True))
    ]
    assert known_share(fingerprints([fitted]), mixed) == pytest.approx(0.5, abs=0.05)


def test_a_short_text_is_recognised_as_a_whole_and_not_by_its_beginning() -> None:
    known = fingerprints([[5, 6, 7, 2], [8, 9, 2]])
    assert known_share(known, [[5, 6, 7, 2]]) == 1
    assert known_share(known, [[5, 6, 7], [9, 8, 2], [5, 6, 7, 2, 2]]) == 0


def test_what_several_documents_share_identifies_none_and_a_repeated_document_is_one() -> None:
    shared, own = documents(1, 378)[0], documents(2, 378, seed=1)
    known = fingerprints([[*shared, *own[0]], [*shared, *own[1]], [*shared, *own[1]]])
    assert known_share(known, cut(shared, 0)) == 0
    assert known_share(known, cut(own[1], 0)) > 0.9


def test_documents_that_share_everything_are_still_known() -> None:
    document = documents(1, 378)[0]
    assert known_share(fingerprints([[*document], [*document, 9]]), cut(document, 0)) > 0.9


def test_nothing_is_known_of_nothing() -> None:
    assert len(windows([])) == 0
    assert known_share(fingerprints([[1, 2]]), []) == 0


@pytest.mark.parametrize("domain", LM_DOMAINS)
def test_the_default_text_to_fit_on_is_refused_and_the_default_text_of_a_run_is_not(domain: str) -> None:
    encode = ByteTokenizer().encode
    written = lm_documents(domain, "train")
    fitted = [encode(next(written)) for _ in range(60)]
    known = fingerprints(fitted)
    assert known_share(known, cut([token for document in fitted[:10] for token in document], 7)) > 2 * MAX_KNOWN - 0.1
    assert known_share(known, cut(encode(lm_text(domain, "heldout", 10_000)), 0)) < MAX_KNOWN / 2
