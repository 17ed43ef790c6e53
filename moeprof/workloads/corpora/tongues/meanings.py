"""What the sentences speak of: the source language's words, and how the other languages build the same meanings from roots.

The target languages have words of their own for the roots only; a teacher is a person of teaching, ugly is the opposite of
beautiful, huge is the extreme of big. So 500 words need no more than 250 stems in every language, and most words have no
single word that translates them.
"""

from typing import Literal, NamedTuple

from moeprof.workloads.corpora.english import plural
from moeprof.workloads.corpora.tongues import lexicon

Making = Literal["root", "compound", "opposite", "extreme"]
NounKind = Literal["person", "animal", "thing", "place", "stuff", "name", "pronoun"]
Frame = Literal["none", "motion", "any", "person", "thing", "food", "gift", "claim"]


class Meaning(NamedTuple):
    """A root is made of itself, a compound of modifier and head, an opposite or extreme of one root."""

    making: Making
    parts: tuple[str, ...]


class Noun(NamedTuple):
    """`plural` is empty for places and stuff, which are spoken of in the singular only."""

    word: str
    plural: str
    kind: NounKind
    meaning: Meaning


class Verb(NamedTuple):
    """`frame` says what follows: nothing, a way to or from a place, an object of some kind, a gift, or a clause."""

    word: str
    frame: Frame
    meaning: Meaning


class Quality(NamedTuple):
    """An adjective, the adverb of an adjective, or an adverb of frequency or time."""

    word: str
    meaning: Meaning


class Entry(NamedTuple):
    """One item of a word list: `word`, `word/plural`, `word=modifier+head`, `word=-opposite` or `word=^lesser`."""

    word: str
    plural: str
    meaning: Meaning


def entry(item: str) -> Entry:
    """Reads an item; the plural is the regular English one unless it is given."""
    form, _, definition = item.partition("=")
    word, _, irregular = form.replace("_", " ").partition("/")
    return Entry(word, irregular or plural(word), meaning(word, definition))


def meaning(word: str, definition: str) -> Meaning:
    """The meaning that a definition spells, the word's own root where there is none."""
    if not definition:
        return Meaning("root", (word,))
    if definition[0] in "-^":
        return Meaning("opposite" if definition[0] == "-" else "extreme", (definition[1:],))
    parts = tuple(definition.split("+"))
    return Meaning("compound" if len(parts) > 1 else "root", parts)


def nouns_of(kind: NounKind, items: str) -> tuple[Noun, ...]:
    """The nouns of one kind; only persons, animals and things are counted."""
    counted = kind in ("person", "animal", "thing")
    return tuple(Noun(word, several if counted else "", kind, made) for word, several, made in map(entry, items.split()))


def verbs_of(frame: Frame, items: str) -> tuple[Verb, ...]:
    """The verbs of one frame."""
    return tuple(Verb(word, frame, made) for word, _, made in map(entry, items.split()))


def qualities_of(items: str) -> tuple[Quality, ...]:
    """Adjectives or adverbs of a lexicon entry."""
    return tuple(Quality(word, made) for word, _, made in map(entry, items.split()))


NOUNS: dict[NounKind, tuple[Noun, ...]] = {
    "person": nouns_of("person", lexicon.PERSONS),
    "animal": nouns_of("animal", lexicon.ANIMALS),
    "thing": nouns_of("thing", lexicon.THINGS),
    "place": nouns_of("place", lexicon.PLACES),
    "stuff": nouns_of("stuff", lexicon.STUFF),
}
VERBS: dict[Frame, tuple[Verb, ...]] = {
    "none": verbs_of("none", lexicon.ACTIVITIES),
    "motion": verbs_of("motion", lexicon.MOTIONS),
    "any": verbs_of("any", lexicon.ON_ANYTHING),
    "person": verbs_of("person", lexicon.ON_PERSONS),
    "thing": verbs_of("thing", lexicon.ON_THINGS),
    "food": verbs_of("food", lexicon.ON_FOOD),
    "gift": verbs_of("gift", lexicon.GIFTS),
    "claim": verbs_of("claim", lexicon.CLAIMS),
}
GENERAL = qualities_of(lexicon.GENERAL)
PERSONAL = qualities_of(lexicon.PERSONAL)
PHYSICAL = qualities_of(lexicon.PHYSICAL)
MANNERS = qualities_of(lexicon.MANNERS)
FREQUENCIES = qualities_of(lexicon.FREQUENCIES)
TIMES = {
    "past": qualities_of(lexicon.PAST),
    "present": qualities_of(lexicon.PRESENT),
    "future": qualities_of(lexicon.FUTURE),
}
ROOT = Meaning("root", ())
NAMES = tuple(Noun(name, "", "name", ROOT) for name in lexicon.NAMES.split())
WOMEN = frozenset(name.word for name in NAMES[::2])
PRONOUNS = tuple(Noun(word, "", "pronoun", ROOT) for word in ("he", "she", "i", "they", "you", "we"))
PLURAL_PRONOUNS = frozenset(("they", "we"))
ALL_NOUNS = tuple(noun for group in NOUNS.values() for noun in group)
ALL_VERBS = tuple(verb for group in VERBS.values() for verb in group)
ADJECTIVES = GENERAL + PERSONAL + PHYSICAL
ADVERBS = FREQUENCIES + TIMES["past"] + TIMES["present"] + TIMES["future"]


def is_root(word: Noun | Verb | Quality) -> bool:
    """Whether the target languages have a stem for the word itself."""
    return word.meaning == Meaning("root", (word.word,))
