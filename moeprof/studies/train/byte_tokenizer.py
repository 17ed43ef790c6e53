"""moeprof's byte tokenizer in the form that transformers reads: the same ids."""

from typing import TYPE_CHECKING

from moeprof.workloads.tokenizers import BOS, EOS, FIRST_BYTE, PAD

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = {PAD: "<|pad|>", BOS: "<|begin|>", EOS: "<|end|>", FIRST_BYTE - 1: "<|unused|>"}
"""Special tokens by id; the last one is a tag that a language model does not use."""


def byte_tokenizer(max_length: int) -> "PreTrainedTokenizerFast":
    """One token per byte of UTF-8, after BOS; it warns of texts longer than `max_length` tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: FIRST_BYTE + byte for byte, letter in enumerate(letters())}
    tokenizer = Tokenizer(models.BPE(vocab={token: id_ for id_, token in SPECIALS.items()} | vocabulary, merges=[]))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS.values()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin = SPECIALS[BOS]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A $B:1", special_tokens=[(begin, BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIALS[PAD],
        bos_token=begin,
        eos_token=SPECIALS[EOS],
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )


def letters() -> list[str]:
    """The letter by which byte-level tokenizers write each byte: itself if it is printable in Latin-1, else one from 256 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
