"""Splits text that is too long: between sentences if possible, else at white space, else between words, never inside a word."""

from collections.abc import Callable, Sequence

import regex

BETWEEN_SENTENCES = regex.compile(
    r"""(?V1x)
      (?=\S) (?<=\p{Sentence_Terminal} [\p{Pe}\p{Pf}"']* \s+)
    | (?![\p{Pe}\p{Pf}]) (?<=[\p{Sentence_Terminal}&&[\p{East_Asian_Width=W}\p{East_Asian_Width=F}]] [\p{Pe}\p{Pf}]*)
    """
)
"""After the mark that ends a sentence (in East Asian scripts no space follows it) and the quotes and brackets that close there."""

BETWEEN_CHUNKS = regex.compile(r"(?V1)(?=\S)(?<=\s)")
"""After white space."""

BETWEEN_WORDS = regex.compile(
    r"""(?V1wx) \b (?: (?<=[\p{Line_Break=ID}\p{Line_Break=CJ}]) (?=[\w\p{Line_Break=ID}])
                     | (?<=\w) (?=[\p{Line_Break=ID}\p{Line_Break=CJ}]) )"""
)
"""Word boundaries of Unicode (UAX 29) beside a character of East Asian scripts or an emoji.

Other scripts have boundaries at white space only: punctuation belongs to its word, and the ends of words in scripts such as Thai are
known to a dictionary only.
"""

LEVELS = (BETWEEN_SENTENCES, BETWEEN_CHUNKS, BETWEEN_WORDS)


def words(text: str) -> list[str]:
    """The parts of a text that are never split, without white space."""
    parts = [text]
    for boundary in LEVELS:
        parts = [finer for part in parts for finer in boundary.split(part)]
    return [word for part in parts if (word := part.strip())]


def split(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text in pieces that fit, without white space around them; every one of its `words` must fit."""
    return [piece.strip() for piece in pieces(text.strip(), lambda part: fits(part.strip()), LEVELS)]


def pieces(text: str, fits: Callable[[str], bool], levels: Sequence[regex.Pattern[str]]) -> list[str]:
    """Pieces that together are the text: as many parts between two boundaries as fit, and a part that does not fit split finer."""
    if fits(text) or not levels:
        return [text]
    found: list[str] = []
    for part in levels[0].split(text):
        if found and fits(found[-1] + part):
            found[-1] += part
        else:
            found += pieces(part, fits, levels[1:])
    return found
