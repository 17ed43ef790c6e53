"""The translation pairs as their readers get them."""

import hashlib
from collections import Counter
from functools import cache

import pytest

from moeprof.workloads.corpora import MT_LANGUAGES, SOURCE_LANGUAGE, Split, mt_pairs, mt_vocabulary
from moeprof.workloads.corpora.tongues import meanings

NUM_PAIRS = 500
SHA256 = {
    ("solvan", "train"): "a41efca014e03a4d69f3207a814edadbe81d68b35e80b41bc3c7a7a7ac124f48",
    ("solvan", "heldout"): "78f9d545b41ab80781e2f1c032f7039a2d625ab508d4e636608e2395e5c007dc",
    ("dorvek", "train"): "5c685bab8d4906ddc08de87c694fd1afa3f95ee55fa9e5a549d93732306a1313",
    ("dorvek", "heldout"): "9cb27bd45a898ca8670bbff9f8d09d20111bd6f32d56d5661f656eccdf9d413b",
    ("imbari", "train"): "308d2dce3e473f387990df71b77a1f2d988f22fc5334619f26a027e02f04653d",
    ("imbari", "heldout"): "b5cfe70163f2a662bbcb9d293629f0e48bc491b3f8b68541d52c0a1e2e1e4771",
}
PUNCTUATION = {".", ",", "!", "?"}
NAMES = {noun.word for noun in meanings.NAMES}


@cache
def training(language: str) -> list[tuple[str, str]]:
    """The pairs that several tests look at."""
    return mt_pairs(language, "train", 3000)


def targets(pairs: list[tuple[str, str]]) -> set[str]:
    """The word forms of the target side, without what all languages share."""
    return {word for _, target in pairs for word in target.split()} - PUNCTUATION - NAMES


def test_three_languages_are_translated_into() -> None:
    assert SOURCE_LANGUAGE == "plain"
    assert MT_LANGUAGES == ("solvan", "dorvek", "imbari")


@pytest.mark.parametrize("language", MT_LANGUAGES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_pairs_are_the_same_on_every_machine(language: str, split: Split) -> None:
    lines = "\n".join("\t".join(pair) for pair in mt_pairs(language, split, NUM_PAIRS))
    assert hashlib.sha256(lines.encode("ascii")).hexdigest() == SHA256[language, split]


def test_more_pairs_begin_with_fewer() -> None:
    pairs = mt_pairs("dorvek", "train", 60)
    assert mt_pairs("dorvek", "train", 0) == []
    assert mt_pairs("dorvek", "train", 17) == pairs[:17]


def test_the_same_number_is_the_same_source_in_every_language() -> None:
    sources = [[source for source, _ in mt_pairs(language, "heldout", 200)] for language in MT_LANGUAGES]
    assert sources[0] == sources[1] == sources[2]


def test_sentences_are_neither_too_short_nor_too_long() -> None:
    for language in MT_LANGUAGES:
        pairs = training(language)
        assert min(len([word for word in source.split() if word not in PUNCTUATION]) for source, _ in pairs) == 4
        assert max(len(source.split()) for source, _ in pairs) <= 24
        assert max(len(target.split()) for _, target in pairs) <= 28
        assert all(text == text.lower() == " ".join(text.split()) for pair in pairs for text in pair)


def test_sources_hardly_ever_repeat() -> None:
    sources = {source for source, _ in training("imbari")}
    heldout = {source for source, _ in mt_pairs("imbari", "heldout", 1000)}
    assert len(sources) >= 2990
    assert len(sources & heldout) <= 3


def test_the_vocabulary_is_sorted_and_leaves_room_for_bytes_and_specials() -> None:
    vocabulary = mt_vocabulary()
    assert list(vocabulary) == sorted(set(vocabulary))
    assert 1800 <= len(vocabulary) <= 2200
    assert all(form.isascii() and (form.isalpha() or form in PUNCTUATION | {"'s"}) for form in vocabulary)


def test_every_word_of_every_pair_is_in_the_vocabulary_and_hardly_a_word_of_it_is_idle() -> None:
    used = {word for language in MT_LANGUAGES for pair in training(language) for word in " ".join(pair).split()}
    assert used <= set(mt_vocabulary())
    assert len(used) > 0.97 * len(mt_vocabulary())


def test_languages_share_names_and_punctuation_and_no_other_word() -> None:
    forms = {language: targets(training(language)) for language in MT_LANGUAGES}
    forms["plain"] = {word for source, _ in training("solvan") for word in source.split()} - PUNCTUATION - NAMES
    assert sum(map(len, forms.values())) == len(set().union(*forms.values()))
    assert all(len(words) > 350 for words in forms.values())


@pytest.mark.parametrize("language", MT_LANGUAGES)
def test_word_by_word_substitution_stays_under_sixty_chrf(language: str) -> None:
    dictionary = likeliest_translations(training(language))
    heldout = mt_pairs(language, "heldout", NUM_PAIRS)
    substituted = [" ".join(dictionary.get(word, word) for word in source.split()) for source, _ in heldout]
    references = [target for _, target in heldout]
    assert 35 < chrf(substituted, references) < 60
    assert chrf(references, references) == pytest.approx(100)


def likeliest_translations(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """For every source word the target word that it shares the most sentences with, by Dice's coefficient."""
    sources, others, together = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for source, target in pairs:
        source_words, target_words = set(source.split()), set(target.split())
        sources.update(source_words)
        others.update(target_words)
        together.update((word, other) for word in source_words for other in target_words)
    best: dict[str, tuple[float, str]] = {}
    for (word, other), count in together.items():
        best[word] = max(best.get(word, (0.0, "")), (2 * count / (sources[word] + others[other]), other))
    return {word: other for word, (_, other) in best.items()}


def chrf(hypotheses: list[str], references: list[str], longest: int = 6, beta: float = 2) -> float:
    """The corpus chrF2 of Popovic (2015) as sacrebleu computes it: character n-grams without blanks, averaged over n."""
    precisions, recalls = [], []
    for length in range(1, longest + 1):
        matches = proposed = wanted = 0
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            left, right = (Counter(grams("".join(text.split()), length)) for text in (hypothesis, reference))
            matches += (left & right).total()
            proposed += left.total()
            wanted += right.total()
        precisions.append(matches / proposed)
        recalls.append(matches / wanted)
    precision, recall = sum(precisions) / longest, sum(recalls) / longest
    return 100 * (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def grams(text: str, length: int) -> list[str]:
    """All character n-grams."""
    return [text[place : place + length] for place in range(len(text) - length + 1)]


def test_an_unknown_language_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="latin"):
        mt_pairs("latin", "train", 1)
