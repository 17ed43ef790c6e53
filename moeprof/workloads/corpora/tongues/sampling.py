"""Random sentences: which nouns go with which verbs, and how much hangs on a noun."""

from moeprof.workloads.corpora.randomness import RandomStream, common_first
from moeprof.workloads.corpora.tongues import meanings
from moeprof.workloads.corpora.tongues.meanings import Frame, Noun, NounKind, Quality, Verb
from moeprof.workloads.corpora.tongues.trees import Circumstance, Clause, Conjunction, Mood, Phrase, Relative, Sentence, Tense

NOUNS: dict[NounKind, tuple[Noun, ...]] = {kind: common_first(nouns) for kind, nouns in meanings.NOUNS.items()}
VERBS: dict[Frame, tuple[Verb, ...]] = {frame: common_first(verbs) for frame, verbs in meanings.VERBS.items()}
PERSONAL: tuple[Quality, ...] = common_first(meanings.GENERAL + meanings.PERSONAL)
PHYSICAL: tuple[Quality, ...] = common_first(meanings.GENERAL + meanings.PHYSICAL)
MANNERS = common_first(meanings.MANNERS)

FRAMES: tuple[Frame, ...] = (
    "none", "none", "motion", "motion", "any", "any", "any", "any", "person", "person", "thing", "thing", "thing", "food",
    "gift", "gift", "claim",
)  # fmt: skip
OBJECTS: dict[Frame, tuple[NounKind, ...]] = {
    "any": ("person", "person", "person", "animal", "animal", "thing", "thing", "thing", "thing", "place", "stuff"),
    "person": ("person", "person", "person", "animal"),
    "thing": ("thing", "thing", "thing", "stuff"),
    "food": ("stuff", "stuff", "stuff", "animal"),
    "gift": ("thing", "thing", "thing", "stuff", "animal"),
}
LIVING: tuple[NounKind, ...] = ("person", "person", "person", "person", "animal")
SUBJECTS: dict[Frame, tuple[NounKind, ...]] = {"gift": ("person",), "claim": ("person",), "motion": (*LIVING, "thing")}
ANYTHING: tuple[NounKind, ...] = ("person", "person", "person", "animal", "animal", "thing", "thing", "place", "stuff")
SINGULAR = ("the",) * 5 + ("a",) * 4 + ("this", "my", "your", "his", "her", "our", "their", "every")
PLURAL = ("the",) * 4 + ("this", "my", "your", "his", "our", "their", "some", "many", "two", "three", "four", "five", "ten")
UNCOUNTED = ("the", "the", "the", "some", "some", "this", "my", "your", "her", "our")
TENSES: tuple[Tense, ...] = ("past", "past", "past", "past", "present", "present", "present", "future", "future", "can", "must")
LINKS: tuple[Conjunction, ...] = ("and", "but", "because", "when", "if")
MOODS: tuple[Mood, ...] = ("statement",) * 15 + ("question", "question", "command", "who", "what", "where")
SPOTS = ("in", "on", "under", "near", "behind")
WAYS = ("to", "from", "through")
COMPANY = ("with", "for", "without")
PREPOSITIONS = SPOTS + WAYS + COMPANY
OPENERS = (
    "of course", "by the way", "in the end", "after all", "as usual", "at first", "to tell the truth", "once upon a time",
)  # fmt: skip


def phrase(stream: RandomStream, kind: NounKind, outermost: bool = False) -> Phrase:
    """Someone or something of that kind; a person may be a name or a pronoun."""
    if kind == "person" and stream.below(3) == 0:
        if stream.below(2):
            return Phrase(stream.pick(meanings.NAMES))
        pronoun = stream.pick(meanings.PRONOUNS)
        return Phrase(pronoun, plural=pronoun.word in meanings.PLURAL_PRONOUNS)
    described = described_phrase(stream, kind)
    if not outermost:
        return described
    way = stream.below(12)
    if way == 0:
        return described._replace(owner=described_phrase(stream, "person")._replace(qualities=()), determiner="")
    if way == 1 and kind != "place":
        return described._replace(relative=relative(stream, kind))
    if way == 2 and kind != "place":
        return described._replace(partner=described_phrase(stream, kind))
    return described


def described_phrase(stream: RandomStream, kind: NounKind) -> Phrase:
    """Determiner, up to two adjectives and a noun."""
    noun = stream.pick(NOUNS[kind])
    plural = bool(noun.plural) and stream.below(3) == 0
    determiner = stream.pick(PLURAL if plural else UNCOUNTED if kind == "stuff" else SINGULAR)
    return Phrase(noun, determiner, plural, qualities(stream, kind))


def qualities(stream: RandomStream, kind: NounKind) -> tuple[Quality, ...]:
    """None, one or two different adjectives that suit the kind."""
    way = stream.below(10)
    if way < 5:
        return ()
    fitting = PERSONAL if kind == "person" else PHYSICAL
    first, second = stream.pick(fitting), stream.pick(fitting)
    return (first,) if way < 9 or first == second else (first, second)


def relative(stream: RandomStream, kind: NounKind) -> Relative:
    """A relative clause on a noun of that kind, which acts in it only if it lives."""
    tense = stream.pick(TENSES)
    if kind in ("person", "animal") and stream.below(2):
        if stream.below(3) == 0:
            return Relative(stream.pick(VERBS["none"]), tense, None, None)
        frame: Frame = stream.pick(("any", "thing", "food"))
        return Relative(stream.pick(VERBS[frame]), tense, None, phrase(stream, stream.pick(OBJECTS[frame])))
    frame = "any" if kind in ("person", "animal") else stream.pick(("any", "thing"))
    return Relative(stream.pick(VERBS[frame]), tense, phrase(stream, "person"), None)


def action(stream: RandomStream, frames: tuple[Frame, ...] = FRAMES, outermost: bool = False) -> Clause:
    """Someone does something, to someone, somehow, somewhere, some time."""
    verb = stream.pick(VERBS[stream.pick(frames)])
    tense = stream.pick(TENSES)
    clause = Clause(
        subject=phrase(stream, stream.pick(SUBJECTS.get(verb.frame, LIVING)), outermost),
        tense=tense,
        negative=stream.below(7) == 0,
        verb=verb,
        patient=phrase(stream, stream.pick(OBJECTS[verb.frame]), outermost) if verb.frame in OBJECTS else None,
        recipient=phrase(stream, "person") if verb.frame == "gift" else None,
        frequency=stream.pick(meanings.FREQUENCIES) if stream.below(9) == 0 else None,
    )
    if verb.frame == "claim":
        return clause._replace(claim=action(stream, FRAMES[:-1]) if stream.below(2) else state(stream))
    return clause._replace(
        manner=stream.pick(MANNERS) if stream.below(7) == 0 else None,
        place=circumstance(stream, verb.frame),
        time=time(stream, tense),
    )


def state(stream: RandomStream, outermost: bool = False) -> Clause:
    """Someone or something is somehow, perhaps as much so as another."""
    kind = stream.pick(ANYTHING)
    tense = stream.pick(TENSES)
    return Clause(
        subject=phrase(stream, kind, outermost),
        tense=tense,
        negative=stream.below(7) == 0,
        quality=stream.pick(PERSONAL if kind == "person" else PHYSICAL),
        standard=phrase(stream, kind) if stream.below(5) == 0 else None,
        frequency=stream.pick(meanings.FREQUENCIES) if stream.below(9) == 0 else None,
        time=time(stream, tense),
    )


def presence(stream: RandomStream) -> Clause:
    """There is something somewhere."""
    subject = described_phrase(stream, stream.pick(("person", "animal", "thing")))
    subject = subject._replace(determiner=stream.pick(("some", "many", "two", "three")) if subject.plural else "a")
    place = Circumstance(stream.pick(SPOTS), described_phrase(stream, "place"))
    tense = stream.pick(TENSES)
    return Clause(subject=subject, tense=tense, negative=stream.below(7) == 0, place=place, time=time(stream, tense))


def circumstance(stream: RandomStream, frame: Frame) -> Circumstance | None:
    """A way for a motion, company or a place for anything else, or nothing."""
    way = stream.below(20)
    if frame == "motion" and way < 14:
        return Circumstance(stream.pick(WAYS), phrase(stream, "place"))
    if way < 4:
        return Circumstance(stream.pick(SPOTS), phrase(stream, "place"))
    if way < 6:
        return Circumstance(stream.pick(COMPANY), phrase(stream, "person"))
    return None


def time(stream: RandomStream, tense: Tense) -> Quality | None:
    """An adverb that fits the tense, or none."""
    if tense not in meanings.TIMES or stream.below(5):
        return None
    return stream.pick(meanings.TIMES[tense])


def sentence(stream: RandomStream) -> Sentence:
    """A sentence of any mood."""
    mood = stream.pick(MOODS)
    if mood == "statement":
        return statement(stream)
    if mood == "question":
        return Sentence(mood, action(stream, outermost=True) if stream.below(3) else state(stream))
    if mood == "command":
        return Sentence(mood, action(stream, FRAMES[2:-1], outermost=True)._replace(subject=None, tense="present", time=None))
    if mood == "who":
        return Sentence(mood, action(stream, FRAMES[:-1], outermost=True)._replace(subject=None))
    if mood == "what":
        return Sentence(mood, action(stream, ("any", "thing", "food"))._replace(patient=None))
    return Sentence(mood, action(stream, FRAMES[4:-1], outermost=True)._replace(place=None))


def statement(stream: RandomStream) -> Sentence:
    """One clause with rich phrases, or two plain ones."""
    opener = stream.pick(OPENERS) if stream.below(10) == 0 else ""
    way = stream.below(20)
    if way < 5:
        first, second = (action(stream, FRAMES[:-1]) if stream.below(4) else state(stream) for _ in range(2))
        return Sentence("statement", first, stream.pick(LINKS), second, opener)
    if way < 7:
        return Sentence("statement", presence(stream), opener=opener)
    if way < 10:
        return Sentence("statement", state(stream, outermost=True), opener=opener)
    return Sentence("statement", action(stream, outermost=True), opener=opener)
