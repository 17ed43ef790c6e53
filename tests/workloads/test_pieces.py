"""Text that is too long is split between sentences, else at white space, else between characters of scripts without spaces."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moeprof.workloads.pieces import split, words


def pieces_of(text: str, limit: int) -> list[str]:
    """The pieces of at most `limit` bytes of UTF-8."""
    return split(text, lambda part: len(part.encode()) <= limit)


def test_sentences_stay_whole_and_share_a_piece_if_they_fit() -> None:
    text = "He came. “Is it so?” She left (really!). 3.14 is pi."
    assert pieces_of(text, 30) == ["He came. “Is it so?”", "She left (really!).", "3.14 is pi."]


def test_a_sentence_that_does_not_fit_is_split_at_white_space() -> None:
    assert pieces_of("One. a bb ccc  dddd\u00a0e fffff gggg", 10) == ["One.", "a bb ccc", "dddd\u00a0e", "fffff gggg"]


def test_a_danda_ends_a_sentence_and_letters_keep_their_signs() -> None:
    assert pieces_of("नेपाल देश हो । राम्रो छ ।", 40) == ["नेपाल देश हो ।", "राम्रो छ ।"]
    assert pieces_of("नेपाल देश हो । राम्रो छ ।", 25) == ["नेपाल देश", "हो ।", "राम्रो छ", "।"]


def test_text_without_spaces_is_split_between_sentences_first_then_between_characters() -> None:
    assert pieces_of("彼は来た。「そうか。」と言った。", 24) == ["彼は来た。", "「そうか。」", "と言った。"]
    assert pieces_of("日本語abcの文。", 9) == ["日本語", "abcの", "文。"]


@pytest.mark.parametrize(
    "text", ["संस्कारजस्तो,", "(पाटलिपुत्र)", "re-elect", "สวัสดีครับ", "👩‍👩‍👧", "🇳🇵🇮🇳", "https://a.b/c", "カタカナ", "e\u0301e\u0301"]
)
def test_one_word_is_never_split(text: str) -> None:
    assert words(f" {text}  {text}\n") == [text, text]


SPACED = st.text(st.sampled_from("ab.!?। )\"'नेि\u0301\n"), max_size=40)


@given(SPACED, st.integers(1, 30))
def test_pieces_fit_and_have_the_words_of_the_text_in_order(text: str, limit: int) -> None:
    assume(all(len(word.encode()) <= limit for word in text.split()))
    pieces = pieces_of(text, limit)
    assert [word for piece in pieces for word in piece.split()] == text.split() == words(text)
    assert all(len(piece.encode()) <= limit and piece == piece.strip() for piece in pieces)


@given(st.text(max_size=40), st.integers(0, 20))
def test_any_text_has_pieces_as_short_as_its_words_allow(text: str, spare: int) -> None:
    limit = max((len(word.encode("utf-8", "surrogatepass")) for word in words(text)), default=0) + spare
    pieces = split(text, lambda part: len(part.encode("utf-8", "surrogatepass")) <= limit)
    assert all(len(piece.encode("utf-8", "surrogatepass")) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@pytest.mark.parametrize("side", ["ne", "en"])
def test_real_sentences_are_split_into_whole_words(shared_data: Path, side: str) -> None:
    lines = (shared_data / "mt" / f"devtest.ne-en.{side}").read_text(encoding="utf-8").splitlines()
    short = [line for line in lines if max(len(word.encode()) for word in line.split()) <= 31]
    assert len(short) > 500
    for line in short:
        pieces = pieces_of(line, 31)
        assert [word for piece in pieces for word in piece.split()] == line.split()
        assert max(len(piece.encode()) for piece in pieces) <= 31
