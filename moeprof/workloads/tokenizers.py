"""Text to token ids and back: bytes, words with a fallback to bytes, hashed words. Every string can be encoded."""

from collections.abc import Iterable, Sequence
from typing import Protocol
from zlib import crc32

from moeprof.records.errors import UsageError

PAD, BOS, EOS, ANY_LANGUAGE = 0, 1, 2, 3
"""Specials; `ANY_LANGUAGE` is the tag of a target language that the vocabulary does not know."""

FIRST_BYTE = 4
FIRST_WORD = FIRST_BYTE + 256
"""Byte b is id 4 + b in every vocabulary; what is not a byte begins at 260."""


class Tokenizer(Protocol):
    """Encodes text alone: the special tokens around it are the workload's."""

    @property
    def vocab_size(self) -> int:
        """Ids lie in [0, vocab_size)."""

    def encode(self, text: str) -> list[int]:
        """The ids of any string; a lone surrogate counts as the three bytes that would encode it."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text behind `ids`: specials and tags skipped, invalid UTF-8 replaced, unused ids shown as `<id>`."""

    def tag(self, language: str) -> int:
        """The id that tells the decoder its target language."""


class ByteTokenizer:
    """One token per byte of UTF-8."""

    vocab_size = FIRST_WORD

    def encode(self, text: str) -> list[int]:
        """4 + each byte."""
        return [FIRST_BYTE + byte for byte in utf8(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Exact for what `encode` made, lone surrogates apart."""
        return decoded(ids, {})

    def tag(self, language: str) -> int:
        """Always the generic tag."""
        return ANY_LANGUAGE


class WordTokenizer:
    """Known words as one token, everything else as bytes; exact both ways.

    Spaces separate words. The space between two known words is implied, every other one is written as a byte.
    """

    def __init__(self, words: Sequence[str], tags: Sequence[str], vocab_size: int) -> None:
        """Tags get the ids from 260, then words; ValueError where they do not fit or a word could never be met."""
        needed = FIRST_WORD + len(tags) + len(words)
        if needed > vocab_size:
            raise ValueError(f"{len(words)} words and {len(tags)} tags need a vocabulary of {needed}, not {vocab_size}")
        if wrong := [word for word in words if not word or " " in word]:
            raise ValueError(f"{wrong[0]!r} is no word: it is empty or holds a space")
        self.vocab_size = vocab_size
        self.tags = {tag: FIRST_WORD + index for index, tag in enumerate(tags)}
        self.ids = {word: FIRST_WORD + len(tags) + index for index, word in enumerate(words)}
        if len(self.tags) + len(self.ids) < len(tags) + len(words):
            raise ValueError("a word or a tag stands twice in the vocabulary")
        self.words = {id_: word for word, id_ in self.ids.items()} | dict.fromkeys(self.tags.values(), "")

    def encode(self, text: str) -> list[int]:
        """One id per known word, or its bytes; a space byte wherever no two known words meet."""
        ids: list[int] = []
        known_before = False
        for index, word in enumerate(text.split(" ")):
            known = word in self.ids
            if index and not (known and known_before):
                ids.append(FIRST_BYTE + ord(" "))
            ids += [self.ids[word]] if known else [FIRST_BYTE + byte for byte in utf8(word)]
            known_before = known
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Exact for what `encode` made, lone surrogates apart."""
        return decoded(ids, self.words)

    def tag(self, language: str) -> int:
        """The language's own tag, or the generic one."""
        return self.tags.get(language, ANY_LANGUAGE)


class HashedTokenizer:
    """Words between white space, hashed into the vocabulary above the bytes; for random weights, which know no words."""

    def __init__(self, vocab_size: int) -> None:
        """ValueError below 260 entries; with just 260 it falls back to bytes."""
        if vocab_size < FIRST_WORD:
            raise ValueError(f"a vocabulary has at least {FIRST_WORD} entries, not {vocab_size}")
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        """One id per word; without room for words, bytes."""
        if self.vocab_size == FIRST_WORD:
            return ByteTokenizer().encode(text)
        return [self.hashed(word) for word in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        """A hash cannot be undone: words come back as `<id>`."""
        return decoded(ids, {})

    def tag(self, language: str) -> int:
        """The hash of `<language>`, or the generic tag where there is room for bytes only."""
        return ANY_LANGUAGE if self.vocab_size == FIRST_WORD else self.hashed(f"<{language}>")

    def hashed(self, word: str) -> int:
        """CRC-32 of the word's UTF-8, folded into [260, vocab_size)."""
        return FIRST_WORD + crc32(utf8(word)) % (self.vocab_size - FIRST_WORD)


def decoded(ids: Iterable[int], words: dict[int, str]) -> str:
    """Text of bytes and words; the space between two words is put back, an empty word (a tag) is skipped."""
    data = bytearray()
    word_before = False
    for token in ids:
        if token < FIRST_BYTE or words.get(token) == "":
            continue
        is_word = token >= FIRST_WORD
        if is_word and word_before:
            data += b" "
        data += utf8(words.get(token, f"<{token}>")) if is_word else bytes([token - FIRST_BYTE])
        word_before = is_word
    return data.decode("utf-8", "replace")


def utf8(text: str) -> bytes:
    """UTF-8, with lone surrogates as three bytes each: no string is refused."""
    return text.encode("utf-8", "surrogatepass")


def make_tokenizer(kind: str, vocab_size: int) -> Tokenizer:
    """The tokenizer of a recipe's `model.tokenizer`; UsageError where the vocabulary is too small for the corpora's words."""
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "hashed":
        return HashedTokenizer(vocab_size)
    if kind != "words":
        raise ValueError(f"no tokenizer is called {kind!r}")
    from moeprof.workloads.corpora import MT_LANGUAGES, mt_vocabulary

    try:
        return WordTokenizer(mt_vocabulary(), MT_LANGUAGES, vocab_size)
    except ValueError as error:
        raise UsageError(f"model.vocab_size: {error}", "Raise model.vocab_size, or set model.tokenizer to bytes.") from error
