"""Dorvek: subject, object, verb; everything that describes comes before what it describes, and tense is a verb ending.

Phrases carry their role in a word that follows them, counted nouns take the classifier of their kind, questions end in `ka`,
reasons and conditions come before what follows from them, and persons are seen or known by other verbs than things are.
"""

from moeprof.workloads.corpora.english import words
from moeprof.workloads.corpora.tongues.meanings import Noun, Quality, Verb
from moeprof.workloads.corpora.tongues.stems import roots, stems
from moeprof.workloads.corpora.tongues.trees import Circumstance, Clause, Phrase, Relative, Sentence, Tense, is_person

CATEGORY, STEM = roots(), stems("dorvek")

ENDINGS: dict[Tense, str] = {"past": "ur", "present": "ak", "future": "esh", "can": "ak", "must": "ak"}
MODALS: dict[Tense, str] = {"can": "holk", "must": "zurt"}
WITH_PERSONS = {"see": "dezg", "find": "vokl", "know": "gatr", "hold": "benk", "want": "zhum", "hear": "thol"}
DETERMINERS = {
    "this": "zek", "my": "mag", "your": "tug", "his": "sog", "her": "sog", "our": "nug", "their": "lug", "every": "drel",
    "some": "gyr", "many": "purt",
}  # fmt: skip
NUMERALS = {"two": "dvo", "three": "trek", "four": "kvar", "five": "pent", "ten": "dzek"}
CLASSIFIERS = {"person": "ulm", "animal": "orv", "thing": "igz"}
PRONOUNS = {"i": "jeg", "you": "juk", "we": "vig", "he": "hesk", "she": "hesk", "they": "hesmel"}
POSTPOSITIONS = {
    "in": "ind", "on": "opp", "under": "untz", "near": "byk", "behind": "hintz", "to": "zug", "from": "fraz", "through": "durk",
    "with": "mitz", "for": "fyrk", "without": "ohnk",
}  # fmt: skip
LINKS = {"and": "ush", "but": "abz"}
FRONTED = {"because": "zun", "when": "vot", "if": "fallk"}
ASKED = {"who": "kemb", "what": "kizh", "where": "kond"}
OPENERS = {
    "of course": "natrk", "by the way": "veg gez", "in the end": "finz", "after all": "dogg", "as usual": "yelt",
    "at first": "erz", "to tell the truth": "varz ind", "once upon a time": "gamm tov",
}  # fmt: skip
PARTICLES = words("va ket gu noz zo mel shu tek dash zu gor nek ka pal ezur ezak ezesh som estur estak estesh")


def citation(root: str) -> str:
    """The form inside compounds: the present of a verb, the stem of anything else."""
    return STEM[root] + (ENDINGS["present"] if CATEGORY[root] == "verb" else "")


def noun(word: Noun) -> list[str]:
    """A name as it is, a root, or modifier and head."""
    return [word.word] if word.kind == "name" else [citation(root) for root in word.meaning.parts]


def quality(word: Quality) -> list[str]:
    """An adjective, which never changes."""
    form = STEM[word.meaning.parts[0]]
    return {"root": [form], "opposite": [form, "zu"], "extreme": ["gor", form]}[word.meaning.making]


def verb(word: Verb, tense: Tense, negative: bool, of_person: bool) -> list[str]:
    """Companion, verb with its tense, opposite, modal verb, negation."""
    first, *companions = word.meaning.parts
    stem = WITH_PERSONS[first] if of_person and first in WITH_PERSONS else STEM[first]
    tokens = [*map(citation, companions), stem + ENDINGS[tense], *["zu"] * (word.meaning.making == "opposite")]
    return tokens + ([MODALS[tense]] if tense in MODALS else []) + ["nek"] * negative


def being(stem: str, tense: Tense, negative: bool) -> list[str]:
    """A form of `be` or `there is`."""
    return [stem + ENDINGS[tense], *([MODALS[tense]] if tense in MODALS else []), *["nek"] * negative]


def phrase(tree: Phrase) -> list[str]:
    """Relative clause, possessor, determiner, adjectives, noun, number."""
    if tree.noun.kind == "pronoun":
        return [PRONOUNS[tree.noun.word]]
    tokens = relative(tree.relative, tree) if tree.relative is not None else []
    tokens += [*phrase(tree.owner), "zo"] if tree.owner is not None else []
    tokens += [DETERMINERS[tree.determiner]] if tree.determiner in DETERMINERS else []
    tokens += [token for word in tree.qualities for token in quality(word)]
    tokens += [*noun(tree.noun), *number(tree)]
    return [*tokens, "ush", *phrase(tree.partner)] if tree.partner is not None else tokens


def number(tree: Phrase) -> list[str]:
    """A numeral with its classifier, or the plural word where nothing else says how many."""
    if tree.determiner in NUMERALS:
        return [NUMERALS[tree.determiner], CLASSIFIERS[tree.noun.kind]]
    return ["mel"] * (tree.plural and tree.determiner != "many")


def relative(tree: Relative, antecedent: Phrase) -> list[str]:
    """A whole clause before its noun, closed by `shu`; without a patient of its own it acts upon the antecedent."""
    around = [*phrase(tree.agent)] if tree.agent is not None else []
    around += objective(tree.patient) if tree.patient is not None else []
    of_person = is_person(tree.patient or antecedent)
    return [*around, *verb(tree.verb, tree.tense, False, of_person), "shu"]


def objective(tree: Phrase) -> list[str]:
    """An object: `gu` follows the indefinite, `ket` the definite."""
    return [*phrase(tree), "gu" if tree.determiner in ("a", "some") else "ket"]


def clause(tree: Clause, asked: str = "") -> list[str]:
    """Subject, time, place, recipient, object, manner, frequency, verb; a question word stands where its answer would."""
    tokens = topic(tree, asked)
    tokens += ["va"] * bool(tokens and (tree.subject is None or tree.subject.noun.kind != "pronoun"))
    tokens += [STEM[part] for part in tree.time.meaning.parts] if tree.time else []
    tokens += circumstance(tree.place) if asked != "where" else [ASKED[asked]]
    tokens += [*phrase(tree.recipient), "noz"] if tree.recipient is not None else []
    tokens += objective(tree.patient) if tree.patient is not None else []
    tokens += [ASKED[asked], "ket"] if asked == "what" else []
    tokens += [*clause(tree.claim), "tek"] if tree.claim is not None else []
    return tokens + verbal(tree)


def topic(tree: Clause, asked: str) -> list[str]:
    """The subject, or the word that asks for it."""
    if tree.subject is None:
        return [ASKED[asked]] if asked == "who" else []
    return phrase(tree.subject)


def verbal(tree: Clause) -> list[str]:
    """Manner, frequency and the verb itself; standard, adjective and `be`; or `there is`."""
    tokens = [*quality(tree.manner), "dash"] if tree.manner else []
    if tree.frequency is not None:
        tokens += [STEM[tree.frequency.meaning.parts[0]], *["zu"] * (tree.frequency.meaning.making == "opposite")]
    if tree.verb is not None:
        return tokens + verb(tree.verb, tree.tense, tree.negative, tree.patient is not None and is_person(tree.patient))
    if tree.quality is None:
        return tokens + being("est", tree.tense, tree.negative)
    standard = [*phrase(tree.standard), "som"] if tree.standard is not None else []
    return [*tokens, *standard, *quality(tree.quality), *being("ez", tree.tense, tree.negative)]


def circumstance(tree: Circumstance | None) -> list[str]:
    """The phrase, then its postposition."""
    return [*phrase(tree.phrase), POSTPOSITIONS[tree.preposition]] if tree is not None else []


def sentence(tree: Sentence) -> list[str]:
    """The opener and the reason first, what is said last."""
    tokens = [*OPENERS[tree.opener].split(), ","] if tree.opener else []
    main = clause(tree.clause, tree.mood if tree.mood in ASKED else "")
    if tree.second is not None and tree.link in FRONTED:
        main = [*clause(tree.second), FRONTED[tree.link], ",", *main]
    elif tree.second is not None:
        main += [",", LINKS[tree.link], *clause(tree.second)]
    if tree.mood == "statement":
        return [*tokens, *main, "."]
    return [*tokens, *main, "pal", "!"] if tree.mood == "command" else [*tokens, *main, "ka", "?"]


def vocabulary() -> set[str]:
    """Every form of the language, names apart."""
    forms = {STEM[root] for root, category in CATEGORY.items() if category != "verb"}
    verbs = {STEM[root] for root, category in CATEGORY.items() if category == "verb"} | set(WITH_PERSONS.values())
    forms |= {stem + ending for stem in verbs for ending in ENDINGS.values()}
    for table in (DETERMINERS, NUMERALS, CLASSIFIERS, PRONOUNS, POSTPOSITIONS, LINKS, FRONTED, ASKED, OPENERS):
        forms |= {token for text in table.values() for token in text.split()}
    return forms | set(PARTICLES) | set(MODALS.values())
