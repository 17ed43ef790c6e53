"""Imbari: verb, subject, object; nouns fall into three classes whose concords stand before verbs, adjectives and possessors.

Plural nouns take the prefix of their class, everything that describes a noun follows it, manner follows the verb at once,
extremes are said twice, and of a happy or sad person one says that the heart is.
"""

from moeprof.workloads.corpora.english import words
from moeprof.workloads.corpora.tongues.meanings import ALL_NOUNS, Noun, NounKind, Quality, Verb
from moeprof.workloads.corpora.tongues.stems import roots, stems
from moeprof.workloads.corpora.tongues.trees import Clause, Phrase, Relative, Sentence, Tense, is_person, many

CATEGORY, STEM = roots(), stems("imbari")

CLASSES: dict[NounKind, int] = {"person": 0, "name": 0, "pronoun": 0, "animal": 1, "thing": 2, "place": 2, "stuff": 2}
PREFIXES = ("wa", "mi", "li")
VERB_CONCORDS = (("ye", "wa"), ("ki", "vi"), ("ku", "lyu"))  # by class, then by number
LINKERS = (("wo", "bo"), ("kyo", "vyo"), ("ko", "lo"))
DEMONSTRATIVES = (("huyu", "hawa"), ("hiki", "hivi"), ("huku", "hulu"))
SPEAKERS = {"i": "nye", "you": "owe", "we": "tse"}
PRONOUNS = {"i": "mimo", "you": "wewo", "we": "sisu", "he": "yeyo", "she": "yeyo", "they": "wawo"}
POSSESSIVES = {"my": "angye", "your": "akwe", "his": "asye", "her": "asye", "our": "etwe", "their": "awye"}
QUANTIFIERS = {
    "every": "kilo", "some": "basi", "many": "inge", "two": "wilo", "three": "tasu", "four": "naye", "five": "sanu", "ten": "kulu",
}  # fmt: skip
TENSES: dict[Tense, str] = {"past": "ile", "present": "ane", "future": "oto", "can": "awe", "must": "aze"}
PREPOSITIONS = {
    "in": "nanu", "on": "juwe", "under": "shimu", "near": "karo", "behind": "nyuma", "to": "hodu", "from": "tokwe",
    "through": "pisu", "with": "pame", "for": "kwayo", "without": "bilo",
}  # fmt: skip
LINKS = {"and": "nayo", "but": "lakwe", "because": "kwona", "when": "wekati", "if": "kyamu"}
ASKING = {"question": "yede", "who": "nano nga", "what": "nino nga", "where": "wopi", "command": "tafe"}
OPENERS = {
    "of course": "hakwe", "by the way": "njyo fu", "in the end": "mwesho", "after all": "hatwe", "as usual": "desto",
    "at first": "mwanye", "to tell the truth": "kwelo fu", "once upon a time": "hape kale",
}  # fmt: skip
OF_THE_HEART = frozenset(("happy", "proud", "lonely", "sad"))
PARTICLES = words("le nga si siyo geu kya moyu fanu ngo kwe pana")


def concord(table: tuple[tuple[str, str], ...], tree: Phrase) -> str:
    """The entry for the class and number of a phrase."""
    return table[CLASSES[tree.noun.kind]][many(tree)]


def noun(word: Noun, plural: bool) -> list[str]:
    """A name as it is, a root, or head and modifier; the head takes the plural prefix."""
    if word.kind == "name":
        return [word.word]
    *modifiers, head = word.meaning.parts
    prefix = PREFIXES[CLASSES[word.kind]] if plural else ""
    return [prefix + STEM[head], *(STEM[root] for root in modifiers)]


def quality(word: Quality) -> list[str]:
    """An adjective; an extreme is said twice."""
    form = STEM[word.meaning.parts[0]]
    return {"root": [form], "opposite": [form, "siyo"], "extreme": [form, form]}[word.meaning.making]


def verb(word: Verb) -> list[str]:
    """A verb, which never changes, with its companion or the sign of the opposite."""
    return [*(STEM[root] for root in word.meaning.parts), *["geu"] * (word.meaning.making == "opposite")]


def phrase(tree: Phrase) -> list[str]:
    """Noun, adjectives, possessor, determiner, relative clause."""
    if tree.noun.kind == "pronoun":
        return [PRONOUNS[tree.noun.word]]
    linker = LINKERS[CLASSES[tree.noun.kind]][tree.plural]
    tokens = noun(tree.noun, tree.plural)
    for word in tree.qualities:
        tokens += [linker, *quality(word)]
    tokens += [linker, *phrase(tree.owner)] if tree.owner is not None else []
    tokens += determiner(tree, linker)
    tokens += relative(tree.relative, tree) if tree.relative is not None else []
    return [*tokens, "nayo", *phrase(tree.partner)] if tree.partner is not None else tokens


def determiner(tree: Phrase, linker: str) -> list[str]:
    """What stands for `the`, `this`, `my` or a number; nothing for `a`."""
    if tree.determiner == "this":
        return [DEMONSTRATIVES[CLASSES[tree.noun.kind]][tree.plural]]
    if tree.determiner in POSSESSIVES:
        return [linker, POSSESSIVES[tree.determiner]]
    if tree.determiner in QUANTIFIERS:
        return [QUANTIFIERS[tree.determiner]]
    return ["le"] * (tree.determiner == "the")


def relative(tree: Relative, antecedent: Phrase) -> list[str]:
    """`nga` and a clause; an object that is spoken of stays behind as `kwe`."""
    acting = tree.agent if tree.agent is not None else antecedent._replace(partner=None)
    tokens = ["nga", TENSES[tree.tense], person(acting), *verb(tree.verb)]
    if tree.agent is not None:
        return [*tokens, "kwe", *subject(tree.agent)]
    return tokens + (phrase(tree.patient) if tree.patient is not None else [])


def person(tree: Phrase | None) -> str:
    """The word between tense and verb: who speaks, or the class of who acts; whoever is asked for is a person."""
    if tree is None:
        return VERB_CONCORDS[0][0]
    return SPEAKERS.get(tree.noun.word) or concord(VERB_CONCORDS, tree)


def subject(tree: Phrase | None) -> list[str]:
    """Pronouns are left out: the concord says it."""
    return phrase(tree) if tree is not None and tree.noun.kind != "pronoun" else []


def clause(tree: Clause, commanded: bool = False) -> list[str]:
    """Negation, tense, concord, verb, manner, frequency, subject, object, recipient, place, time."""
    tokens = ["si"] * tree.negative + ([] if commanded else [TENSES[tree.tense]])
    if tree.verb is not None:
        tokens += [] if commanded else [person(tree.subject)]
        tokens += action(tree, tree.verb)
    elif tree.quality is not None:
        tokens += state(tree, tree.quality)
    else:
        tokens += ["pana", *subject(tree.subject)]
    tokens += [PREPOSITIONS[tree.place.preposition], *phrase(tree.place.phrase)] if tree.place is not None else []
    return tokens + ([STEM[part] for part in tree.time.meaning.parts] if tree.time else [])


def action(tree: Clause, word: Verb) -> list[str]:
    """From the verb to the recipient; a pronoun object comes before the subject."""
    tokens = [*verb(word), *(["kya", *quality(tree.manner)] if tree.manner else []), *frequency(tree.frequency)]
    patient = phrase(tree.patient) if tree.patient is not None else []
    if tree.patient is not None and tree.patient.noun.kind == "pronoun":
        tokens += [*patient, *subject(tree.subject)]
    else:
        tokens += [*subject(tree.subject), *patient]
    tokens += ["kwe", *phrase(tree.recipient)] if tree.recipient is not None else []
    return tokens + (["ngo", *clause(tree.claim)] if tree.claim is not None else [])


def state(tree: Clause, word: Quality) -> list[str]:
    """Concord, adjective and subject, or the same of the heart of a person."""
    assert tree.subject is not None
    if word.word in OF_THE_HEART and tree.standard is None and is_person(tree.subject):
        linker = LINKERS[CLASSES["thing"]][0]
        return [linker, *quality(word), *frequency(tree.frequency), "moyu", linker, *phrase(tree.subject)]
    agreeing = SPEAKERS.get(tree.subject.noun.word) or concord(LINKERS, tree.subject)
    tokens = [agreeing, *quality(word), *frequency(tree.frequency), *subject(tree.subject)]
    return tokens + (["fanu", *phrase(tree.standard)] if tree.standard is not None else [])


def frequency(word: Quality | None) -> list[str]:
    """`often` and its like."""
    return quality(word) if word is not None else []


def sentence(tree: Sentence) -> list[str]:
    """Opener, question word, one clause or two in the order of the source."""
    tokens = [*OPENERS[tree.opener].split(), ","] if tree.opener else []
    tokens += ASKING[tree.mood].split() if tree.mood in ASKING else []
    tokens += clause(tree.clause, commanded=tree.mood == "command")
    if tree.second is not None:
        tokens += [*[","] * (tree.link in ("and", "but")), LINKS[tree.link], *clause(tree.second)]
    return [*tokens, "!" if tree.mood == "command" else "." if tree.mood == "statement" else "?"]


def vocabulary() -> set[str]:
    """Every form of the language, names apart."""
    forms = set(STEM.values()) | set(PARTICLES) | set(TENSES.values())
    forms |= {noun(word, plural=True)[0] for word in ALL_NOUNS if word.plural}
    forms |= {form for table in (VERB_CONCORDS, LINKERS, DEMONSTRATIVES) for pair in table for form in pair}
    for words_of in (SPEAKERS, PRONOUNS, POSSESSIVES, QUANTIFIERS, PREPOSITIONS, LINKS, ASKING, OPENERS):
        forms |= {token for text in words_of.values() for token in text.split()}
    return forms
