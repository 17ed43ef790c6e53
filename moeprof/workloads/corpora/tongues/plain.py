"""The source language: plain English whose every verb has an auxiliary, so that only nouns are inflected."""

from moeprof.workloads.corpora.tongues import meanings
from moeprof.workloads.corpora.tongues.sampling import LINKS, OPENERS, PLURAL, PREPOSITIONS, SINGULAR
from moeprof.workloads.corpora.tongues.trees import Clause, Phrase, Relative, Sentence, Tense, many

AUXILIARIES: dict[Tense, str] = {"past": "did", "present": "do", "future": "will", "can": "can", "must": "must"}
OBJECT_FORMS = {"i": "me", "he": "him", "she": "her", "we": "us", "they": "them", "you": "you"}
ASKED = ("who", "what", "where")
PUNCTUATION = (".", ",", "!", "?")
BEING = ("am", "is", "are", "was", "were", "be")
VOWELS = tuple("aeiou")


def sentence(tree: Sentence) -> list[str]:
    """The tokens of a whole sentence."""
    opener = [*tree.opener.split(), ","] if tree.opener else []
    if tree.mood == "command":
        negation = ["do", "not"] if tree.clause.negative else []
        return ["please", *negation, *predicate(tree.clause), "!"]
    if tree.mood != "statement":
        return [*question(tree), "?"]
    tokens = opener + clause(tree.clause)
    if tree.second is not None:
        tokens += [*([","] if tree.link in ("and", "but") else []), tree.link, *clause(tree.second)]
    return [*tokens, "."]


def question(tree: Sentence) -> list[str]:
    """The auxiliary first, or the question word and then the auxiliary."""
    asked = [tree.mood] if tree.mood in ASKED else []
    verbal, rest = auxiliary(tree.clause), predicate(tree.clause)
    subject = phrase(tree.clause.subject) if tree.clause.subject else []
    return [*asked, verbal[0], *subject, *verbal[1:], *rest]


def clause(tree: Clause) -> list[str]:
    """Subject, auxiliary and the rest."""
    if tree.verb is None and tree.quality is None:
        assert tree.subject is not None
        return ["there", *auxiliary(tree), *phrase(tree.subject), *adverbials(tree)]
    subject = phrase(tree.subject) if tree.subject else []
    return [*subject, *auxiliary(tree), *predicate(tree)]


def auxiliary(tree: Clause) -> list[str]:
    """A form of `do`, `be` or a modal verb, and `not`."""
    plural = tree.subject is not None and many(tree.subject)
    word = tree.subject.noun.word if tree.subject else ""
    negation = ["not"] if tree.negative else []
    if tree.verb is not None:
        first = AUXILIARIES[tree.tense]
        return ["does" if first == "do" and not plural and word not in ("i", "you") else first, *negation]
    if tree.tense == "present":
        return ["am" if word == "i" else "are" if plural or word == "you" else "is", *negation]
    if tree.tense == "past":
        return ["were" if plural or word == "you" else "was", *negation]
    return [AUXILIARIES[tree.tense], *negation, "be"]


def predicate(tree: Clause) -> list[str]:
    """Everything after the auxiliary."""
    tokens = [tree.frequency.word] if tree.frequency else []
    if tree.quality is not None:
        standard = ["as", tree.quality.word, "as", *phrase(tree.standard, "object")] if tree.standard else [tree.quality.word]
        return tokens + standard + adverbials(tree)
    if tree.verb is not None:
        tokens += tree.verb.word.split()
    if tree.patient is not None:
        tokens += phrase(tree.patient, "object")
    if tree.recipient is not None:
        tokens += ["to", *phrase(tree.recipient, "object")]
    if tree.claim is not None:
        tokens += ["that", *clause(tree.claim)]
    return tokens + adverbials(tree)


def adverbials(tree: Clause) -> list[str]:
    """Manner, place and time, in this order."""
    tokens = [tree.manner.word] if tree.manner else []
    if tree.place is not None:
        tokens += [tree.place.preposition, *phrase(tree.place.phrase, "object")]
    return tokens + (tree.time.word.split() if tree.time else [])


def phrase(tree: Phrase, role: str = "subject") -> list[str]:
    """A pronoun, a name, or determiner, adjectives, noun and relative clause; `role` matters to pronouns alone."""
    if tree.noun.kind == "pronoun":
        return [OBJECT_FORMS[tree.noun.word] if role == "object" else tree.noun.word]
    qualities = [quality.word for quality in tree.qualities]
    tokens = [*qualities, tree.noun.plural if tree.plural else tree.noun.word]
    if tree.owner is not None:
        tokens = [*phrase(tree.owner), "'s", *tokens]
    elif tree.determiner:
        tokens.insert(0, determiner(tree.determiner, tree.plural, tokens[0]))
    if tree.relative is not None:
        tokens += relative(tree.relative, many(tree))
    return [*tokens, "and", *phrase(tree.partner, role)] if tree.partner is not None else tokens


def determiner(word: str, plural: bool, following: str) -> str:
    """`these` and `an` where English wants them."""
    if word == "this" and plural:
        return "these"
    return "an" if word == "a" and following.startswith(VOWELS) else word


def relative(tree: Relative, plural: bool) -> list[str]:
    """`that` and a clause with a gap; `plural` is the antecedent's number."""
    agent = phrase(tree.agent) if tree.agent else []
    plural = many(tree.agent) if tree.agent else plural
    patient = phrase(tree.patient, "object") if tree.patient else []
    first_or_second = tree.agent is not None and tree.agent.noun.word in ("i", "you")
    verbal = "does" if tree.tense == "present" and not plural and not first_or_second else AUXILIARIES[tree.tense]
    return ["that", *agent, verbal, *tree.verb.word.split(), *patient]


def vocabulary() -> set[str]:
    """Every form of the language, names and punctuation included."""
    nouns = meanings.ALL_NOUNS + meanings.NAMES + meanings.PRONOUNS
    forms = {form for noun in nouns for form in (noun.word, noun.plural) if form} | set(OBJECT_FORMS.values())
    qualities = meanings.ADJECTIVES + meanings.MANNERS + meanings.ADVERBS
    texts = [verb.word for verb in meanings.ALL_VERBS] + [word.word for word in qualities] + [*OPENERS, *ASKED]
    forms |= {token for text in texts for token in text.split()}
    forms |= {*AUXILIARIES.values(), *LINKS, *SINGULAR, *PLURAL, *PREPOSITIONS, *BEING, *PUNCTUATION}
    return forms | {"does", "not", "please", "there", "these", "an", "that", "as", "'s"}
