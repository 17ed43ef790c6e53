"""Solvan: subject, verb, object; nouns have gender, and articles, possessives, adjectives and verbs agree.

Adjectives follow the noun but for a few short ones, object pronouns precede the verb, he, she and they are left out as
subjects, negation stands on both sides of the verb, and one does not be hungry but holds hunger.
"""

from moeprof.workloads.corpora.english import words
from moeprof.workloads.corpora.tongues import meanings
from moeprof.workloads.corpora.tongues.meanings import Noun, Quality, Verb
from moeprof.workloads.corpora.tongues.stems import roots, stems
from moeprof.workloads.corpora.tongues.trees import Circumstance, Clause, Phrase, Relative, Sentence, Tense, is_person, many

CATEGORY, STEM = roots(), stems("solvan")
FEMININE_ROOTS = frozenset(root for number, root in enumerate(CATEGORY) if number % 2)

ARTICLES = {"the": ("lor", "lar", "loi", "lai"), "a": ("nu", "na"), "this": ("sto", "sta", "stoi", "stai")}
POSSESSIVES = {"my": "mev", "your": "tev", "his": "sev", "her": "sev", "our": "novr", "their": "lovr"}
QUANTITIES = {
    "every": "tut", "some": "kelk", "many": "molt", "two": "dus", "three": "tris", "four": "kart", "five": "sink", "ten": "dez",
}  # fmt: skip
PRONOUNS = {"i": "yo", "you": "tu", "we": "nos", "he": "", "she": "", "they": ""}
CLITICS = {"i": "mi", "you": "ti", "we": "ni", "he": "lu", "she": "lei", "they": "lis"}
PREPOSITIONS = {
    "in": "den", "on": "sor", "under": "sut", "near": "prel", "behind": "dretro", "to": "ver", "from": "dai", "through": "tras",
    "with": "kon", "for": "por", "without": "sanz",
}  # fmt: skip
BEFORE_VERB: dict[Tense, tuple[str, str]] = {"past": ("vo", "von"), "can": ("po", "pon"), "must": ("dev", "devon")}
LINKS = {"and": "e", "but": "maz", "because": "perke", "when": "kwan", "if": "seb"}
ASKING = {"question": "eska", "who": "kwi", "what": "kosa", "where": "ondre", "command": "pregi"}
OPENERS = {
    "of course": "klar", "by the way": "de paso", "in the end": "al fin", "after all": "toton", "as usual": "komor",
    "at first": "alvan", "to tell the truth": "en veror", "once upon a time": "na vol",
}  # fmt: skip
HELD = {"hungry": "famor", "thirsty": "sedor", "angry": "iror"}
PREPOSED = frozenset(("big", "small", "old", "good"))
PARTICLES = words("di mal tra ment ra no pa ad ke kem sa san tene tenen avi tan kom e")


def feminine(phrase: Phrase) -> bool:
    """A phrase of several is feminine only if all of them are."""
    alone = phrase.noun.word in meanings.WOMEN or phrase.noun.word == "she" or has_feminine_head(phrase.noun)
    return alone and (phrase.partner is None or feminine(phrase.partner))


def has_feminine_head(noun: Noun) -> bool:
    """Whether a noun is feminine; a compound has the gender of its head."""
    return bool(noun.meaning.parts) and noun.meaning.parts[-1] in FEMININE_ROOTS


def citation(root: str) -> str:
    """The root as the dictionary gives it, which is its form inside compounds."""
    endings = {"noun": "a" if root in FEMININE_ROOTS else "o", "verb": "i", "adjective": "o", "adverb": ""}
    return STEM[root] + endings[CATEGORY[root]]


def noun(word: Noun) -> list[str]:
    """A name as it is, a root, or head and modifier."""
    if word.kind == "name":
        return [word.word]
    *modifiers, head = word.meaning.parts
    return [citation(head), *(token for root in modifiers for token in ("di", citation(root)))]


def quality(word: Quality, is_feminine: bool) -> list[str]:
    """An adjective with the ending of its noun."""
    form = STEM[word.meaning.parts[0]] + ("a" if is_feminine else "o")
    return {"root": [form], "opposite": ["mal", form], "extreme": [form, "tra"]}[word.meaning.making]


def verb(word: Verb, plural: bool) -> list[str]:
    """A verb with the ending of its subject, and its companion if it is a compound."""
    form = STEM[word.meaning.parts[0]] + ("in" if plural else "i")
    return ["mal"] * (word.meaning.making == "opposite") + [form, *map(citation, word.meaning.parts[1:])]


def phrase(tree: Phrase) -> list[str]:
    """Article, noun, adjectives, possessor, relative clause; pronouns in the form that follows prepositions."""
    if tree.noun.kind == "pronoun":
        return [CLITICS[tree.noun.word]]
    is_feminine = has_feminine_head(tree.noun)
    before = [token for word in tree.qualities if word.word in PREPOSED for token in quality(word, is_feminine)]
    after = [token for word in tree.qualities if word.word not in PREPOSED for token in quality(word, is_feminine)]
    tokens = [*determiner(tree, is_feminine), *before, *noun(tree.noun), *after]
    if tree.determiner in POSSESSIVES:
        tokens.append(POSSESSIVES[tree.determiner] + ("a" if is_feminine else "o"))
    if tree.owner is not None:
        tokens += ["di", *phrase(tree.owner)]
    if tree.relative is not None:
        tokens += relative(tree.relative, tree.plural)
    return [*tokens, "e", *phrase(tree.partner)] if tree.partner is not None else tokens


def determiner(tree: Phrase, is_feminine: bool) -> list[str]:
    """An article in gender and number, which every possessed noun has too, or a quantity."""
    if tree.noun.kind == "name":
        return []
    if tree.determiner in QUANTITIES:
        return [QUANTITIES[tree.determiner]]
    return [ARTICLES.get(tree.determiner, ARTICLES["the"])[is_feminine + 2 * tree.plural]]


def relative(tree: Relative, plural: bool) -> list[str]:
    """`ke` and the verb for a subject; `kem`, verb and then its subject for an object."""
    if tree.agent is None:
        return ["ke", *action(tree.verb, tree.tense, False, plural, tree.patient)]
    return ["kem", *action(tree.verb, tree.tense, False, many(tree.agent), None), *subject(tree.agent)]


def action(word: Verb, tense: Tense, negative: bool, plural: bool, patient: Phrase | None) -> list[str]:
    """The verb with all that clings to it, a pronoun object before it, any other object behind."""
    clinging = patient is not None and patient.noun.kind == "pronoun"
    patient_tokens = phrase(patient) if patient is not None else []
    tokens = ["no"] * negative + (patient_tokens if clinging else [])
    tokens += [BEFORE_VERB[tense][plural]] if tense in BEFORE_VERB else []
    tokens += [*verb(word, plural), *["ra"] * (tense == "future"), *["pa"] * negative]
    return tokens if clinging else tokens + patient_tokens


def being(tree: Clause, forms: tuple[str, str], plural: bool) -> list[str]:
    """A form of `be`, `hold` or `there is` with tense and negation."""
    tokens = ["no"] * tree.negative + ([BEFORE_VERB[tree.tense][plural]] if tree.tense in BEFORE_VERB else [])
    return [*tokens, forms[plural], *["ra"] * (tree.tense == "future"), *["pa"] * tree.negative]


def subject(tree: Phrase | None) -> list[str]:
    """Nothing for he, she and they."""
    if tree is not None and tree.noun.kind == "pronoun":
        return [PRONOUNS[tree.noun.word]] if PRONOUNS[tree.noun.word] else []
    return phrase(tree) if tree is not None else []


def clause(tree: Clause) -> list[str]:
    """Time, subject, verb, frequency, recipient, object, manner, place."""
    plural = tree.subject is not None and many(tree.subject)
    tokens = [citation(part) for part in tree.time.meaning.parts] if tree.time else []
    if tree.verb is None and tree.quality is None:
        assert tree.subject is not None
        return [*tokens, *being(tree, ("avi", "avi"), plural), *phrase(tree.subject), *circumstance(tree.place)]
    tokens += subject(tree.subject)
    if tree.quality is not None:
        return tokens + state(tree, tree.quality, plural)
    assert tree.verb is not None
    clinging = tree.patient if tree.patient is not None and tree.patient.noun.kind == "pronoun" else None
    tokens += action(tree.verb, tree.tense, tree.negative, plural, clinging) + frequency(tree.frequency)
    tokens += ["ad", *phrase(tree.recipient)] if tree.recipient is not None else []
    tokens += phrase(tree.patient) if tree.patient is not None and clinging is None else []
    tokens += ["ke", *clause(tree.claim)] if tree.claim is not None else []
    tokens += [*quality(tree.manner, True), "ment"] if tree.manner else []
    return tokens + circumstance(tree.place)


def state(tree: Clause, word: Quality, plural: bool) -> list[str]:
    """`be` and an agreeing adjective, or `hold` and a noun for what persons feel."""
    if tree.subject is not None and word.word in HELD and tree.standard is None and is_person(tree.subject):
        return [*being(tree, ("tene", "tenen"), plural), *frequency(tree.frequency), HELD[word.word]]
    agreeing = quality(word, tree.subject is not None and feminine(tree.subject))
    if tree.standard is not None:
        agreeing = ["tan", *agreeing, "kom", *phrase(tree.standard)]
    return [*being(tree, ("sa", "san"), plural), *frequency(tree.frequency), *agreeing]


def frequency(word: Quality | None) -> list[str]:
    """`often` and its like; the opposite of often is `mal` and often."""
    if word is None:
        return []
    return ["mal"] * (word.meaning.making == "opposite") + [citation(word.meaning.parts[0])]


def circumstance(tree: Circumstance | None) -> list[str]:
    """The preposition, then its phrase."""
    return [PREPOSITIONS[tree.preposition], *phrase(tree.phrase)] if tree is not None else []


def sentence(tree: Sentence) -> list[str]:
    """Question words come first, openers last."""
    tokens = [ASKING[tree.mood]] if tree.mood in ASKING else []
    tokens += clause(tree.clause)
    if tree.second is not None:
        tokens += [*[","] * (tree.link in ("and", "but")), LINKS[tree.link], *clause(tree.second)]
    if tree.opener:
        tokens += [",", *OPENERS[tree.opener].split()]
    return [*tokens, "!" if tree.mood == "command" else "." if tree.mood == "statement" else "?"]


def vocabulary() -> set[str]:
    """Every form of the language, names apart."""
    forms = {citation(root) for root in CATEGORY}
    forms |= {STEM[root] + ending for root, category in CATEGORY.items() if category == "adjective" for ending in "oa"}
    forms |= {STEM[root] + "in" for root, category in CATEGORY.items() if category == "verb"}
    forms |= {stem + ending for stem in POSSESSIVES.values() for ending in "oa"}
    for table in (QUANTITIES, PRONOUNS, CLITICS, PREPOSITIONS, LINKS, ASKING, OPENERS, HELD):
        forms |= {token for text in table.values() for token in text.split()}
    forms |= {form for table in (ARTICLES, BEFORE_VERB) for agreeing in table.values() for form in agreeing}
    return forms | set(PARTICLES)
