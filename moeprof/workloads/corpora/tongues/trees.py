"""Sentences before any language has put them into words: what is said of whom, without order, endings or particles."""

from typing import Literal, NamedTuple

from moeprof.workloads.corpora.tongues.meanings import Noun, Quality, Verb

Tense = Literal["past", "present", "future", "can", "must"]
Mood = Literal["statement", "question", "who", "what", "where", "command"]
Conjunction = Literal["", "and", "but", "because", "when", "if"]


class Phrase(NamedTuple):
    """A noun with what belongs to it. Only outermost phrases have an owner, a relative clause or a partner, so that the words
    of the source language never leave open what belongs to what."""

    noun: Noun
    determiner: str = ""
    plural: bool = False
    qualities: tuple[Quality, ...] = ()
    owner: "Phrase | None" = None
    relative: "Relative | None" = None
    partner: "Phrase | None" = None


class Relative(NamedTuple):
    """`that did see the cat` without `agent`, `that the cat did see` without `patient`; neither where the verb takes none."""

    verb: Verb
    tense: Tense
    agent: Phrase | None
    patient: Phrase | None


class Circumstance(NamedTuple):
    """A preposition of the source language and what it governs."""

    preposition: str
    phrase: Phrase


class Clause(NamedTuple):
    """An action (`verb`), a state (`quality`, compared with `standard` if any), or that something is at `place` (neither).

    `subject` is missing where the mood asks for it or commands.
    """

    subject: Phrase | None
    tense: Tense
    negative: bool = False
    verb: Verb | None = None
    patient: Phrase | None = None
    recipient: Phrase | None = None
    claim: "Clause | None" = None
    quality: Quality | None = None
    standard: Phrase | None = None
    frequency: Quality | None = None
    manner: Quality | None = None
    place: Circumstance | None = None
    time: Quality | None = None


class Sentence(NamedTuple):
    """One clause or two linked ones; an opener such as `of course` may come before statements."""

    mood: Mood
    clause: Clause
    link: Conjunction = ""
    second: Clause | None = None
    opener: str = ""


def many(phrase: Phrase) -> bool:
    """Whether a verb agrees with the phrase in the plural."""
    return phrase.plural or phrase.partner is not None


def is_person(phrase: Phrase) -> bool:
    """Whether the phrase's noun is a person, a name or a pronoun."""
    return phrase.noun.kind in ("person", "name", "pronoun")
