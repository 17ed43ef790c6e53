"""Text to token ids and back: bytes, words with a fallback to bytes, hashed words. Every string can be encoded."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol
from zlib import crc32

from moeprof.records.errors import UsageError

PAD, BOS, EOS, ANY_LANGUAGE = 0, 1, 2, 3
"""Special tokens; `ANY_LANGUAGE` is the tag of a target language outside the vocabulary."""

FIRST_BYTE = 4
FIRST_WORD = FIRST_BYTE + 256
"""Byte b has id 4 + b in every vocabulary; other ids begin at 260."""


class Tokenizer(Protocol):
    """Encodes plain text; workloads add special tokens."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, which are in [0, vocab_size)."""

    def encode(self, text: str) -> list[int]:
        """The ids of any string; a lone surrogate counts as the three bytes that would encode it."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without specials and tags; invalid UTF-8 is replaced, unused ids become `<id>`."""

    def tag(self, language: str) -> int:
        """The id of a target language, the decoder's first token."""


class ByteTokenizer:
    """One token per byte of UTF-8."""

    vocab_size = FIRST_WORD

    def encode(self, text: str) -> list[int]:
        """One id per byte of UTF-8, 4 + byte."""
        return [FIRST_BYTE + byte for byte in utf8(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Inverts `encode` exactly, except for lone surrogates."""
        return decoded(ids, {})

    def tag(self, language: str) -> int:
        """The generic tag, whatever the language."""
        return ANY_LANGUAGE


class WordTokenizer:
    """Known words as one token each, everything else as bytes; decoding is exact.

    Spaces separate words. The space between two known words is implied; every other space is encoded as a byte.
    """

    def __init__(self, words: Sequence[str], tags: Sequence[str], vocab_size: int) -> None:
        """Tags get the ids from 260, then words; ValueError if they do not fit or a word could never occur."""
        needed = FIRST_WORD + len(tags) + len(words)
        if needed > vocab_size:
            raise ValueError(f"{len(words)} words and {len(tags)} tags need a vocabulary of {needed}, not {vocab_size}")
        if wrong := [word for word in words if not word or " " in word]:
            raise ValueError(f"{wrong[0]!r} is not a word: empty or with a space")
        self.vocab_size = vocab_size
        self.tags = {tag: FIRST_WORD + index for index, tag in enumerate(tags)}
        self.ids = {word: FIRST_WORD + len(tags) + index for index, word in enumerate(words)}
        if len(self.tags) + len(self.ids) < len(tags) + len(words):
            raise ValueError("a word or a tag occurs twice in the vocabulary")
        self.words = {id_: word for word, id_ in self.ids.items()} | dict.fromkeys(self.tags.values(), "")

    def encode(self, text: str) -> list[int]:
        """One id per known word, or its bytes; a space is encoded unless it is between two known words."""
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
        """Inverts `encode` exactly, except for lone surrogates."""
        return decoded(ids, self.words)

    def tag(self, language: str) -> int:
        """The tag of the language, or the generic one."""
        return self.tags.get(language, ANY_LANGUAGE)


class HashedTokenizer:
    """Words between white space, hashed into the vocabulary above the bytes; for models with random weights."""

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
        """Words become `<id>`, because a hash cannot be inverted."""
        return decoded(ids, {})

    def tag(self, language: str) -> int:
        """The hash of `<language>`, or the generic tag if the vocabulary has only bytes."""
        return ANY_LANGUAGE if self.vocab_size == FIRST_WORD else self.hashed(f"<{language}>")

    def hashed(self, word: str) -> int:
        """CRC-32 of the word's UTF-8, folded into [260, vocab_size)."""
        return FIRST_WORD + crc32(utf8(word)) % (self.vocab_size - FIRST_WORD)


def decoded(ids: Iterable[int], words: dict[int, str]) -> str:
    """Text of bytes and words; adds the space between two words and skips empty words (tags)."""
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
    """UTF-8, with lone surrogates as three bytes each, so that every string can be encoded."""
    return text.encode("utf-8", "surrogatepass")


class FolderTokenizer:
    """The tokenizer in the folder of a checkpoint, whose id of EOS must be that of moeprof, as it is in NLLB."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        """UsageError if there is none that can be used."""
        from moeprof.huggingface.folder import open_folder
        from moeprof.huggingface.tokenizer import load_tokenizer

        self.text, self.vocab_size = load_tokenizer(open_folder(str(path))), vocab_size
        if self.text.end_ids != [EOS]:
            raise UsageError(
                f"checkpoint {path}: its tokenizer ends texts with {self.text.end_ids}, not {[EOS]}", "Use NLLB's."
            )

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        return self.text.encode_plainly(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self.text.tokenizer.decode(list(ids), skip_special_tokens=True))

    def tag(self, language: str) -> int:
        """The id of the token with this name, such as `fra_Latn`; EOS, with which NLLB begins, if there is none."""
        return int(self.text.tokenizer.get_vocab().get(language, EOS))


def make_tokenizer(kind: str, vocab_size: int, checkpoint: str | None = None) -> Tokenizer:
    """The tokenizer of a recipe's `model.tokenizer`; UsageError if the vocabulary is too small for the corpora's words."""
    if kind == "checkpoint":
        if checkpoint is None or not Path(checkpoint).is_dir():
            raise UsageError(
                "model.tokenizer is checkpoint, but model.checkpoint is no folder", "Set model.tokenizer to bytes."
            )
        return FolderTokenizer(Path(checkpoint), vocab_size)
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
