"""The grammars, on sentences that are built by hand."""

from itertools import product

import pytest

from moeprof.workloads.corpora.tongues import dorvek, imbari, meanings, plain, solvan
from moeprof.workloads.corpora.tongues.meanings import Noun, Quality, Verb
from moeprof.workloads.corpora.tongues.stems import stems
from moeprof.workloads.corpora.tongues.trees import Circumstance, Clause, Phrase, Relative, Sentence, Tense

NOUNS = {noun.word: noun for noun in (*meanings.ALL_NOUNS, *meanings.NAMES, *meanings.PRONOUNS)}
VERBS = {verb.word: verb for verb in meanings.ALL_VERBS}
QUALITIES = {word.word: word for word in (*meanings.ADJECTIVES, *meanings.MANNERS, *meanings.ADVERBS)}
LEMMAS: list[Noun | Verb | Quality] = [*meanings.ALL_NOUNS, *meanings.ALL_VERBS, *QUALITIES.values()]
STEMS = {language: stems(language) for language in ("solvan", "dorvek", "imbari")}


def the(noun: str, *qualities: str, plural: bool = False, determiner: str = "the") -> Phrase:
    return Phrase(NOUNS[noun], determiner, plural, tuple(QUALITIES[word] for word in qualities))


def says(subject: Phrase, verb: str, patient: Phrase | None = None, tense: Tense = "past") -> Clause:
    return Clause(subject, tense, verb=VERBS[verb], patient=patient)


def statement(clause: Clause) -> Sentence:
    return Sentence("statement", clause)


def place_of(root: str, language: str, tokens: list[str]) -> int:
    """Where the only token with the stem of `root` stands."""
    [place] = [place for place, token in enumerate(tokens) if STEMS[language][root] in token]
    return place


DOG_SEES_CAT = statement(says(the("dog"), "see", the("cat")))


def test_there_are_more_than_five_hundred_words_and_less_than_half_as_many_stems() -> None:
    assert len({lemma.word for lemma in LEMMAS}) == len(LEMMAS) == 547
    assert {language: len(set(stem_of.values())) for language, stem_of in STEMS.items()} == dict.fromkeys(STEMS, 226)


def test_every_word_that_is_no_root_is_made_of_roots() -> None:
    assert {part for lemma in LEMMAS for part in lemma.meaning.parts} == set(STEMS["solvan"])


def test_no_two_nouns_or_verbs_are_made_alike() -> None:
    for lemmas in (meanings.ALL_NOUNS, meanings.ALL_VERBS, meanings.ADJECTIVES):
        assert len({lemma.meaning for lemma in lemmas}) == len(lemmas)


def test_the_source_language_is_english_with_auxiliaries() -> None:
    assert " ".join(plain.sentence(DOG_SEES_CAT)) == "the dog did see the cat ."
    many = says(the("child", plural=True, determiner="this"), "carry", the("egg", determiner="a"), "present")
    assert " ".join(plain.sentence(statement(many))) == "these children do carry an egg ."
    asked = Sentence("question", Clause(the("mother"), "past", True, quality=QUALITIES["happy"]))
    assert " ".join(plain.sentence(asked)) == "was the mother not happy ?"


@pytest.mark.parametrize(
    ("language", "order"),
    [("solvan", ("dog", "see", "cat")), ("dorvek", ("dog", "cat", "see")), ("imbari", ("see", "dog", "cat"))],
)
def test_subject_verb_and_object_have_their_own_order_in_every_language(language: str, order: tuple[str, ...]) -> None:
    tokens = {"solvan": solvan, "dorvek": dorvek, "imbari": imbari}[language].sentence(DOG_SEES_CAT)
    places = [place_of(root, language, tokens) for root in order]
    assert places == sorted(places)


def test_adjectives_follow_the_noun_except_in_dorvek_and_for_short_ones_in_solvan() -> None:
    for language, grammar in (("solvan", solvan), ("dorvek", dorvek), ("imbari", imbari)):
        red, old = (grammar.phrase(the("horse", word)) for word in ("red", "old"))
        assert (place_of("red", language, red) < place_of("horse", language, red)) == (language == "dorvek")
        assert (place_of("old", language, old) < place_of("horse", language, old)) == (language != "imbari")


def test_solvan_articles_adjectives_and_possessives_have_the_gender_of_the_noun() -> None:
    for noun in meanings.ALL_NOUNS:
        article, head, *rest = solvan.phrase(the(noun.word, "red", determiner="my"))
        assert {article, head[-1], rest[-1][-1], rest[-2][-1]} in ({"lor", "o"}, {"lar", "a"}), noun.word


def test_solvan_verbs_agree_in_number() -> None:
    one = solvan.sentence(DOG_SEES_CAT)
    many = solvan.sentence(statement(says(the("dog", plural=True), "see", the("cat"))))
    assert (one[2], one[3]) == ("vo", STEMS["solvan"]["see"] + "i")
    assert (many[2], many[3]) == ("von", STEMS["solvan"]["see"] + "in")
    assert [*one[4:]] == [*many[4:]]


def test_solvan_pairs_are_feminine_only_if_both_are() -> None:
    feminine, masculine = (
        next(noun.word for noun in meanings.ALL_NOUNS if noun.kind == "animal" and solvan.noun(noun)[0].endswith(ending))
        for ending in "ao"
    )
    for first, second in product((feminine, masculine), repeat=2):
        couple = the(first)._replace(partner=the(second))
        ending = solvan.sentence(statement(Clause(couple, "present", quality=QUALITIES["wet"])))[-2][-1]
        assert ending == ("a" if first == second == feminine else "o")


def test_solvan_negates_around_the_verb_and_puts_pronouns_before_it() -> None:
    clause = says(Phrase(NOUNS["he"]), "see", Phrase(NOUNS["they"], plural=True))._replace(negative=True)
    assert solvan.sentence(statement(clause)) == ["no", "lis", "vo", STEMS["solvan"]["see"] + "i", "pa", "."]


def test_solvan_persons_hold_hunger_and_animals_are_hungry() -> None:
    person, animal = (
        solvan.sentence(statement(Clause(the(noun), "present", quality=QUALITIES["hungry"]))) for noun in ("king", "dog")
    )
    assert person[-3:] == ["tene", "famor", "."]
    assert animal[-3:-1] == ["sa", STEMS["solvan"]["hungry"] + animal[1][-1]]


def test_dorvek_shows_tense_in_the_last_syllable() -> None:
    said: dict[Tense, list[str]] = {
        tense: dorvek.sentence(statement(says(the("dog"), "see", the("cat"), tense))) for tense in ("past", "present", "future")
    }
    assert {tense: tokens[-2].removeprefix(STEMS["dorvek"]["see"]) for tense, tokens in said.items()} == {
        "past": "ur",
        "present": "ak",
        "future": "esh",
    }
    assert said["past"][:-2] == said["present"][:-2] == said["future"][:-2]


def test_dorvek_counts_with_the_classifier_of_the_kind() -> None:
    counted = {noun: dorvek.phrase(the(noun, plural=True, determiner="three"))[-2:] for noun in ("king", "dog", "book")}
    assert counted == {"king": ["trek", "ulm"], "dog": ["trek", "orv"], "book": ["trek", "igz"]}


def test_dorvek_sees_persons_with_another_verb() -> None:
    assert dorvek.sentence(statement(says(the("dog"), "see", the("king"))))[-2] == "dezgur"
    assert dorvek.sentence(DOG_SEES_CAT)[-2] == STEMS["dorvek"]["see"] + "ur"


def test_dorvek_puts_relative_clauses_and_reasons_first() -> None:
    relative = the("dog")._replace(relative=Relative(VERBS["see"], "past", None, the("cat")))
    tokens = dorvek.phrase(relative)
    assert place_of("cat", "dorvek", tokens) < place_of("see", "dorvek", tokens) < place_of("dog", "dorvek", tokens)
    reasoned = Sentence("statement", says(the("dog"), "sleep"), "because", says(the("cat"), "sing"))
    tokens = dorvek.sentence(reasoned)
    assert place_of("sing", "dorvek", tokens) + 1 == tokens.index("zun") < place_of("sleep", "dorvek", tokens)


@pytest.mark.parametrize(
    ("noun", "plural", "verb_concord", "linker"),
    [
        ("king", False, "ye", "wo"),
        ("king", True, "wa", "bo"),
        ("dog", False, "ki", "kyo"),
        ("dog", True, "vi", "vyo"),
        ("boat", False, "ku", "ko"),
        ("boat", True, "lyu", "lo"),
    ],
)
def test_imbari_verbs_and_adjectives_take_the_concord_of_the_class(
    noun: str, plural: bool, verb_concord: str, linker: str
) -> None:
    subject = the(noun, "red", "strange", plural=plural)
    tokens = imbari.sentence(statement(says(subject, "return")))
    assert tokens[1] == verb_concord
    for adjective in ("red", "strange"):
        assert tokens[place_of(adjective, "imbari", tokens) - 1] == linker
    predicate = imbari.sentence(statement(Clause(the(noun, plural=plural), "past", quality=QUALITIES["wet"])))
    assert predicate[:3] == ["ile", linker, STEMS["imbari"]["wet"]]


def test_imbari_says_extremes_twice_and_speaks_of_the_heart() -> None:
    big = STEMS["imbari"]["big"]
    assert imbari.phrase(the("dog", "huge", determiner="a"))[1:] == ["kyo", big, big]
    happy = imbari.sentence(statement(Clause(the("king"), "past", quality=QUALITIES["happy"])))
    assert happy == ["ile", "ko", STEMS["imbari"]["happy"], "moyu", "ko", STEMS["imbari"]["king"], "le", "."]


def test_questions_are_marked_at_the_front_or_at_the_end() -> None:
    asked = DOG_SEES_CAT._replace(mood="question")
    assert solvan.sentence(asked)[0] == "eska"
    assert dorvek.sentence(asked)[-2] == "ka"
    assert imbari.sentence(asked)[0] == "yede"
    for grammar in (solvan, dorvek, imbari):
        assert set(grammar.sentence(DOG_SEES_CAT)) < set(grammar.sentence(asked)) | {"."}


def test_possessors_come_first_in_dorvek_alone() -> None:
    house = the("house", determiner="")._replace(owner=the("king"))
    for language, grammar in (("solvan", solvan), ("dorvek", dorvek), ("imbari", imbari)):
        tokens = grammar.phrase(house)
        assert (place_of("king", language, tokens) < place_of("house", language, tokens)) == (language == "dorvek")


def test_places_stand_before_the_verb_in_dorvek_and_at_the_end_elsewhere() -> None:
    clause = says(the("dog"), "sleep")._replace(place=Circumstance("near", the("river")))
    for language, grammar in (("solvan", solvan), ("dorvek", dorvek), ("imbari", imbari)):
        tokens = grammar.sentence(statement(clause))
        assert (place_of("river", language, tokens) < place_of("sleep", language, tokens)) == (language == "dorvek")
