"""Every string can be encoded, and what bytes and words encode comes back exactly."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.workloads.tokenizers import (
    ANY_LANGUAGE,
    BOS,
    EOS,
    FIRST_BYTE,
    FIRST_WORD,
    PAD,
    ByteTokenizer,
    HashedTokenizer,
    Tokenizer,
    WordTokenizer,
    make_tokenizer,
)

WORDS = ("cat", "dog", "chien", "é", "猫", "a")
TAGS = ("fr", "ja")
SPECIALS = [PAD, BOS, EOS, ANY_LANGUAGE]


def words() -> WordTokenizer:
    return WordTokenizer(WORDS, TAGS, 270)


def any_text() -> st.SearchStrategy[str]:
    """Arbitrary strings, and strings of known words, near misses and every kind of space."""
    pieces = st.sampled_from([*WORDS, "Cat", "cats", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "", "<268>", "fr", "\0"])
    return st.text() | st.lists(pieces, max_size=12).map("".join) | st.lists(pieces, max_size=12).map(" ".join)


def test_bytes_follow_four_specials() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.vocab_size == 260
    assert sorted(SPECIALS) == [0, 1, 2, 3]
    assert tokenizer.encode("Aé\0") == [4 + 0x41, 4 + 0xC3, 4 + 0xA9, 4]


def test_known_words_are_one_token_and_the_space_between_them_is_free() -> None:
    assert words().encode("cat dog") == [262, 263]
    assert words().encode("cat  dog") == [262, 36, 36, 263]
    assert words().encode("cat dog ") == [262, 263, 36]
    assert words().encode("cat ox dog") == [262, 36, 4 + ord("o"), 4 + ord("x"), 36, 263]
    assert words().encode("cat\ndog") == [4 + byte for byte in b"cat\ndog"]


def test_a_generated_sequence_of_words_reads_as_a_sentence() -> None:
    assert words().decode([260, BOS, 262, PAD, 263, 266, EOS, PAD]) == "cat dog 猫"


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), words(), HashedTokenizer(260)])
@given(text=any_text())
def test_every_string_comes_back_exactly(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "tokenizer", [ByteTokenizer(), words(), HashedTokenizer(260), HashedTokenizer(261), HashedTokenizer(8192)]
)
@given(text=st.text(st.characters()) | any_text())
def test_every_string_can_be_encoded_lone_surrogates_too(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(FIRST_BYTE <= token < tokenizer.vocab_size for token in ids)
    assert isinstance(tokenizer.decode(ids), str)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), words(), HashedTokenizer(300)])
@given(ids=st.lists(st.integers(0, 400)))
def test_whatever_a_model_generates_can_be_decoded_and_printed(tokenizer: Tokenizer, ids: list[int]) -> None:
    tokenizer.decode(ids).encode("utf-8")


@given(text=any_text(), places=st.lists(st.tuples(st.integers(0, 99), st.sampled_from([*SPECIALS, 260, 261]))))
def test_specials_and_tags_are_skipped_wherever_they_stand(text: str, places: list[tuple[int, int]]) -> None:
    ids = words().encode(text)
    for place, special in places:
        ids.insert(place % (len(ids) + 1), special)
    assert words().decode(ids) == text


def test_invalid_bytes_are_replaced_and_unused_ids_shown() -> None:
    assert ByteTokenizer().decode([4 + 0xFF, 4 + 0x41, 300, 301]) == "\ufffdA<300> <301>"
    assert words().decode([262, 269]) == "cat <269>"


def test_lone_surrogates_are_three_bytes_that_decode_to_replacements() -> None:
    assert ByteTokenizer().encode("\ud800") == [4 + 0xED, 4 + 0xA0, 4 + 0x80]
    assert ByteTokenizer().decode(ByteTokenizer().encode("a\ud800b")) == "a\ufffd\ufffd\ufffdb"


def test_hashed_words_have_the_id_of_their_crc() -> None:
    assert crc32(b"cat") == 0x9E5E43A8
    assert HashedTokenizer(8192).encode(" cat\n\tcat dog ") == [260 + 0x9E5E43A8 % 7932] * 2 + [260 + crc32(b"dog") % 7932]


def test_hashed_words_come_back_as_placeholders() -> None:
    assert HashedTokenizer(8192).decode([BOS, 300, 8000, EOS]) == "<300> <8000>"


def test_a_known_language_has_its_own_tag_and_an_unknown_one_the_generic() -> None:
    assert [words().tag(language) for language in ("fr", "ja", "xx", "cat")] == [260, 261, ANY_LANGUAGE, ANY_LANGUAGE]
    assert ByteTokenizer().tag("fr") == HashedTokenizer(260).tag("fr") == ANY_LANGUAGE
    assert HashedTokenizer(8192).tag("fr") == 260 + crc32(b"<fr>") % 7932


def test_a_vocabulary_fits_exactly_or_not_at_all() -> None:
    assert WordTokenizer(WORDS, TAGS, 268).encode("a") == [267]
    with pytest.raises(ValueError, match="6 words and 2 tags need a vocabulary of 268, not 267"):
        WordTokenizer(WORDS, TAGS, 267)


@pytest.mark.parametrize(("listed", "tags"), [(["a", "a"], []), (["a b"], []), ([""], []), ([], ["fr", "fr"])])
def test_words_that_could_not_be_told_apart_are_refused(listed: list[str], tags: list[str]) -> None:
    with pytest.raises(ValueError, match=r"twice|is not a word"):
        WordTokenizer(listed, tags, 300)


def test_a_word_and_a_tag_may_be_spelt_alike() -> None:
    tokenizer = WordTokenizer(["fr"], ["fr"], 262)
    assert (tokenizer.tag("fr"), tokenizer.encode("fr"), tokenizer.decode([260, 261])) == (260, [261], "fr")


def test_a_hashed_vocabulary_holds_the_bytes_at_least() -> None:
    with pytest.raises(ValueError, match="at least 260 entries, not 259"):
        HashedTokenizer(259)


def test_recipes_name_their_tokenizer() -> None:
    assert isinstance(make_tokenizer("bytes", 512), ByteTokenizer)
    hashed = make_tokenizer("hashed", 8192)
    assert isinstance(hashed, HashedTokenizer)
    assert hashed.vocab_size == 8192
    with pytest.raises(ValueError, match="'letters'"):
        make_tokenizer("letters", 512)


def test_the_words_of_the_default_corpora_fit_the_shipped_recipe_and_nothing_much_smaller() -> None:
    from moeprof.workloads.corpora import MT_LANGUAGES, mt_vocabulary

    tokenizer = make_tokenizer("words", 2560)
    sentence = " ".join(mt_vocabulary()[:9])
    assert len(tokenizer.encode(sentence)) == 9
    assert tokenizer.decode(tokenizer.encode(sentence)) == sentence
    assert [tokenizer.tag(language) for language in MT_LANGUAGES] == list(range(FIRST_WORD, FIRST_WORD + len(MT_LANGUAGES)))
    with pytest.raises(UsageError, match=r"model\.vocab_size: .* need a vocabulary of"):
        make_tokenizer("words", FIRST_WORD)
