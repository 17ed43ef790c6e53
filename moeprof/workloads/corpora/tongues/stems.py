"""The stems of the invented languages: one for every root meaning, in the sounds of the language, drawn once and for all."""

from typing import Literal, NamedTuple

from moeprof.workloads.corpora.english import words
from moeprof.workloads.corpora.randomness import RandomStream, seed_of
from moeprof.workloads.corpora.tongues import meanings

Category = Literal["noun", "verb", "adjective", "adverb"]


class Sounds(NamedTuple):
    """What stands for the letters of a pattern: C begins a syllable, V is its vowel, K may follow it."""

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    codas: tuple[str, ...]
    patterns: dict[Category, str]


SOUNDS = {
    "solvan": Sounds(
        words("b d f g l m n p r s t v br tr pl fl gr"),
        words("a e i o u"),
        words("l n r s d v lt nd rm st nt"),
        {"noun": "CVK", "verb": "CVK", "adjective": "CVK", "adverb": "CVKe"},
    ),
    "dorvek": Sounds(
        words("d k g z t b v h sh kh"),
        words("a e o u"),
        words("k r z t n rk zt lm"),
        {"noun": "CVKVK", "verb": "CVK", "adjective": "CVKim", "adverb": "CVKej"},
    ),
    "imbari": Sounds(
        words("w y k m n t l s h"),
        words("a e i u o"),
        words("mb nd ng nz ny"),
        {"noun": "VKVCV", "verb": "CVKV", "adjective": "CVCVKi", "adverb": "CVCVCu"},
    ),
}


def roots() -> dict[str, Category]:
    """Every root meaning with its category, in the order of the word lists."""
    groups: tuple[tuple[Category, tuple[meanings.Noun | meanings.Verb | meanings.Quality, ...]], ...] = (
        ("noun", meanings.ALL_NOUNS),
        ("verb", meanings.ALL_VERBS),
        ("adjective", meanings.ADJECTIVES),
        ("adverb", meanings.ADVERBS),
    )
    return {word.word: category for category, group in groups for word in group if meanings.is_root(word)}


def stems(language: str) -> dict[str, str]:
    """The stem of every root, no two alike."""
    stream, sounds = RandomStream(seed_of("mt", "stems", language)), SOUNDS[language]
    letters = {"C": sounds.onsets, "V": sounds.vowels, "K": sounds.codas}
    stem_of: dict[str, str] = {}
    taken: set[str] = set()
    for root, category in roots().items():
        stem = ""
        while not stem or stem in taken:
            stem = "".join(
                stream.pick(letters[letter]) if letter in letters else letter for letter in sounds.patterns[category]
            )
        taken.add(stem)
        stem_of[root] = stem
    return stem_of
