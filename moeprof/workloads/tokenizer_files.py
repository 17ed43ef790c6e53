"""The tokenizers of recipes as files of Hugging Face's tokenizers, which encode the same text to the same ids."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from moeprof.workloads.tokenizers import ANY_LANGUAGE, BOS, EOS, FIRST_BYTE, PAD, ByteTokenizer, Tokenizer, WordTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as TokenizerFile
    from tokenizers.normalizers import Normalizer

SPECIAL = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, "<language>": ANY_LANGUAGE}

MARK = "\x02"
"""Precedes every known word while text is encoded, so that a word of one letter differs from that letter inside another word."""

CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "clean_up_tokenization_spaces": False,
}
"""What `tokenizer_config.json` says."""


def tokenizer_file(tokenizer: Tokenizer) -> "TokenizerFile | None":
    """The same tokenizer with EOS behind every text; None for hashed words, which need no vocabulary and have none."""
    if isinstance(tokenizer, ByteTokenizer):
        return with_words({}, {})
    return with_words(tokenizer.ids, tokenizer.tags) if isinstance(tokenizer, WordTokenizer) else None


def with_words(words: dict[str, int], tags: dict[str, int]) -> "TokenizerFile":
    """Known words have these ids, all other bytes their own; the space between two known words is implied."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = SPECIAL | dict(zip(byte_letters(), range(FIRST_BYTE, FIRST_BYTE + 256), strict=True))
    vocabulary |= {in_letters(MARK + word): id_ for word, id_ in words.items()} | {f"<{tag}>": id_ for tag, id_ in tags.items()}
    file = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    if words:
        file.normalizer = normalizers.Sequence([normalizers.Prepend(" "), *marking(words)])
    pieces = pre_tokenizers.Split(Regex(f"{MARK}[^ {MARK}]+"), "isolated")
    file.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    spaces = decoders.Replace(Regex(f"(?<=[^ ]){MARK}"), " ")
    file.decoder = decoders.Sequence([decoders.ByteLevel(), spaces, decoders.Replace(MARK, "")])
    file.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    file.add_special_tokens([AddedToken(name, normalized=False) for name in [*SPECIAL, *(f"<{tag}>" for tag in tags)]])
    return file


def marking(words: Iterable[str]) -> list["Normalizer"]:
    """Steps that put MARK in the place of the space before every known word, behind a space if an unknown word comes before.

    They need a space before the text, which the last one removes.
    """
    from tokenizers import Regex, normalizers

    known = "|".join(map(re.escape, words))
    steps = {rf" (?=(?:{known})(?: |\z))": MARK, rf" [^ {MARK}]*\K{MARK}": f" {MARK}", r"\A ": ""}
    return [normalizers.Replace(Regex(pattern), content) for pattern, content in steps.items()]


def byte_letters() -> Iterator[str]:
    """The letter that stands for each byte in files of byte-level tokenizers: itself if it is printable, else one from U+0100 on."""
    kept = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return (chr(byte if byte in kept else next(others)) for byte in range(256))


def in_letters(text: str) -> str:
    """The bytes of a text as their letters."""
    letters = list(byte_letters())
    return "".join(letters[byte] for byte in text.encode())
