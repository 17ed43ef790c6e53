"""Sentences that are too long for a source are split, left out if a word is too long, or refused; every one of them is counted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import FittedText
from moeprof.workloads.sources import Source, fitted_sources
from moeprof.workloads.text import ParallelText, read_pairs
from moeprof.workloads.tokenizers import EOS, ByteTokenizer

Micro = Callable[[str], Path]
Found = tuple[list[tuple[str, int, str]], FittedText]


@pytest.fixture
def fitted(micro: Micro) -> Callable[..., Found]:
    """A function that fits sentences to sources of 9 bytes and EOS, in batches of 3: (text, sentence, reference) of every source."""

    def fit(sentences: list[str], max_sources: int = 100, *overrides: str) -> Found:
        pairs = [(sentence, f"reference {number}") for number, sentence in enumerate(sentences)]
        recipe = load_recipe(str(micro("mt")), overrides)
        sources, found = fitted_sources(ParallelText("ne-en", pairs, ""), ByteTokenizer(), recipe, max_sources)
        assert all(source.tokens[-1] == EOS and len(source.tokens) <= recipe.load.sequence_length for source in sources)
        return [(ByteTokenizer().decode(source.tokens), source.sentence, source.reference) for source in sources], found

    return fit


def counts(sentences: int, split: int = 0, unfinished: int = 0, left_out: int = 0, longest_word: int = 0) -> FittedText:
    return FittedText(sentences=sentences, split=split, unfinished=unfinished, left_out=left_out, longest_word=longest_word)


def test_short_sentences_stay_as_they_are(fitted: Callable[..., Found]) -> None:
    sources, found = fitted([" a  b ", "123456789", "c"])
    assert sources == [(" a  b ", 0, "reference 0"), ("123456789", 1, "reference 1"), ("c", 2, "reference 2")]
    assert found == counts(3)


def test_pieces_know_their_sentence_and_its_whole_reference(fitted: Callable[..., Found]) -> None:
    sources, found = fitted(["one", "two three four", "five, six. Seven"], 100, "load.batch_size=1")
    assert [text for text, _, _ in sources] == ["one", "two three", "four", "five,", "six.", "Seven"]
    assert [sentence for _, sentence, _ in sources] == [0, 1, 1, 2, 2, 2]
    assert all(reference == f"reference {sentence}" for _, sentence, reference in sources)
    assert found == counts(3, split=2)


def test_sentences_beyond_the_last_full_batch_do_not_count(fitted: Callable[..., Found]) -> None:
    sources, found = fitted(["one", "two three four", "five six seven", "extraordinary"])
    assert [text for text, _, _ in sources] == ["one", "two three", "four"]
    assert found == counts(2, split=1, left_out=1, longest_word=len("extraordinary"))


def test_a_sentence_whose_last_pieces_have_no_place_has_no_reference(fitted: Callable[..., Found]) -> None:
    sources, found = fitted(["one", "two", "three four five six", "seven"], 4)
    assert sources == [("one", 0, "reference 0"), ("two", 1, "reference 1"), ("three", 2, "")]
    assert found == counts(3, split=1, unfinished=1)


def test_a_sentence_with_a_word_that_is_too_long_is_left_out_and_counted(fitted: Callable[..., Found]) -> None:
    sources, found = fitted(["one", "an extraordinary word", "two", "three", "unconstitutionally"])
    assert [text for text, _, _ in sources] == ["one", "two", "three"]
    assert found == counts(3, left_out=2, longest_word=len("unconstitutionally"))


def test_a_text_of_words_that_are_too_long_is_refused_with_the_length_that_suffices(fitted: Callable[..., Found]) -> None:
    with pytest.raises(UsageError) as caught:
        fitted(["extraordinary", "unconstitutionally"])
    assert str(caught.value) == (
        "data ne-en: all 2 sources have a word of more than 9 tokens; the longest has 18\n"
        "Raise the limit with --set load.sequence_length=19."
    )
    sources, found = fitted(["extraordinary", "unconstitutionally", "x"], 100, "load.sequence_length=19")
    assert (len(sources), found) == (3, counts(3))


def test_sources_are_refused_with_a_count_on_request(fitted: Callable[..., Found]) -> None:
    refuse = "data.too_long=refuse"
    with pytest.raises(UsageError) as caught:
        fitted(["one", "two three four", "1234567890", "123456789"], 100, refuse)
    assert str(caught.value) == (
        "data ne-en: 2 of 4 sources have more than 9 tokens; the longest has 14\n"
        "Split them with --too-long split, or raise the limit with --set load.sequence_length=15."
    )
    assert fitted(["one", "two", "123456789"], 100, refuse)[1] == counts(3)
    assert fitted(["one", "two three four", "five"], 100, refuse, "load.sequence_length=15")[1] == counts(3)


@pytest.mark.parametrize(("bound", "used"), [(1, [0]), (23, [0]), (24, [0, 1]), (29, [0, 1]), (30, [0, 1, 2])])
def test_a_bound_on_tokens_takes_or_leaves_a_sentence_with_all_its_pieces(
    fitted: Callable[..., Found], bound: int, used: list[int]
) -> None:
    sources, _ = fitted(["abcd efghi", "abcd efghijk", "abcde"], 100, f"data.max_tokens={bound}", "load.batch_size=1")
    assert list(dict.fromkeys(sentence for _, sentence, _ in sources)) == used


@pytest.mark.parametrize(("side", "too_long", "left_out"), [("ne", 96, 55), ("en", 95, 0)])
def test_real_sentences_are_split_or_counted(shared_data: Path, micro: Micro, side: str, too_long: int, left_out: int) -> None:
    paths = [str(shared_data / "mt" / f"devtest.ne-en.{one}") for one in (side, "en")]
    recipe = load_recipe(str(micro("mt")), ["load.sequence_length=32", "load.batch_size=1"])
    text = read_pairs("ne-en", paths, 96)
    sources, found = fitted_sources(text, ByteTokenizer(), recipe, 10_000)
    assert sum(len(source.encode()) > 31 for source, _ in text.pairs) == too_long
    assert (found.sentences, found.split, found.left_out, found.unfinished) == (96 - left_out, too_long - left_out, left_out, 0)
    assert rejoined(sources) == [
        " ".join(text.pairs[number][0].split()) for number in sorted({one.sentence for one in sources})
    ]


def rejoined(sources: list[Source]) -> list[str]:
    """The words of every sentence."""
    found: dict[int, list[str]] = {}
    for source in sources:
        found.setdefault(source.sentence, []).extend(ByteTokenizer().decode(source.tokens).split())
    return [" ".join(words) for words in found.values()]
