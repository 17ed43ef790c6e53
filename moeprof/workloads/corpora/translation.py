"""Sentence pairs for the translation workload, said in every language from the same random sentences."""

from collections.abc import Callable

from moeprof.workloads.corpora.randomness import RandomStream, Split, seed_of
from moeprof.workloads.corpora.tongues import dorvek, imbari, plain, solvan
from moeprof.workloads.corpora.tongues.meanings import NAMES
from moeprof.workloads.corpora.tongues.sampling import sentence
from moeprof.workloads.corpora.tongues.trees import Sentence

SOURCE_LANGUAGE = "plain"
SAY: dict[str, Callable[[Sentence], list[str]]] = {
    "solvan": solvan.sentence,
    "dorvek": dorvek.sentence,
    "imbari": imbari.sentence,
}
MT_LANGUAGES: tuple[str, ...] = tuple(SAY)
SHORTEST_SOURCE = 5  # four words and the full stop
LONGEST_SOURCE = 24
LONGEST_TARGET = 28


def mt_pairs(language: str, split: Split, num_pairs: int) -> list[tuple[str, str]]:
    """The first `num_pairs` pairs (source, target) of the endless train or held-out text; KeyError for an unknown language.

    Lower-case ASCII tokens between single blanks, 5 to 24 in the source and at most 28 in the target. Pair n depends on
    (split, n) and the language alone, and has the same source in every language.
    """
    say = SAY[language]
    pairs = []
    for number in range(num_pairs):
        source, tree = fitting_sentence(split, number)
        pairs.append((" ".join(source), " ".join(say(tree))))
    return pairs


def fitting_sentence(split: Split, number: int) -> tuple[list[str], Sentence]:
    """Source tokens and tree of pair `number`: the first of its random sentences that no language finds too long."""
    stream = RandomStream(seed_of("mt", split, number))
    while True:
        tree = sentence(stream)
        source = plain.sentence(tree)
        if SHORTEST_SOURCE <= len(source) <= LONGEST_SOURCE and all(len(say(tree)) <= LONGEST_TARGET for say in SAY.values()):
            return source, tree


def mt_vocabulary() -> tuple[str, ...]:
    """Every word form and punctuation mark that a pair of any language may hold, sorted."""
    forms = plain.vocabulary() | {name.word for name in NAMES}
    return tuple(sorted(forms | solvan.vocabulary() | dorvek.vocabulary() | imbari.vocabulary()))
