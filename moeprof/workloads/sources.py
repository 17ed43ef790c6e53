"""Sources of a translation workload: sentences as tokens that end with EOS, split if they are too long for the recipe."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.run import FittedText
from moeprof.workloads.batches import whole_batches
from moeprof.workloads.pieces import split, words
from moeprof.workloads.text import ParallelText
from moeprof.workloads.tokenizers import EOS, Tokenizer

Pieces = list[list[int]]
"""The tokens of a sentence, in one piece or several; none if a word is too long."""


@dataclass(frozen=True)
class Source:
    """What the encoder reads as one sequence: a sentence, or a piece of one."""

    tokens: Sequence[int]
    sentence: int = -1
    """The number of its sentence in the text."""
    reference: str = ""
    """The translation of the whole sentence; empty if pieces of the sentence are missing from the batches."""


def fitted_sources(
    text: ParallelText, tokenizer: Tokenizer, recipe: Recipe, max_sources: int
) -> tuple[list[Source], FittedText]:
    """At most `max_sources` sources in full batches, and what became of sentences that are too long for one source."""
    length = recipe.load.sequence_length
    if recipe.data.too_long == "refuse":
        refuse_too_long(text, tokenizer, length)
    pieces = within((pieces_of(source, tokenizer, length) for source, _ in text.pairs), max_sources, recipe.data.max_tokens)
    if not any(pieces):
        raise nothing_left(text, tokenizer, length)
    sources = [Source(tokens, number, text.pairs[number][1]) for number, parts in enumerate(pieces) for tokens in parts]
    kept = whole_batches(sources[:max_sources], recipe.load.batch_size)
    last = kept[-1].sentence
    unfinished = sum(source.sentence == last for source in kept) < len(pieces[last])
    left_out = [text.pairs[number][0] for number, parts in enumerate(pieces) if not parts]
    found = FittedText(
        sentences=sum(len(parts) > 0 for parts in pieces[: last + 1]),
        split=sum(len(parts) > 1 for parts in pieces[: last + 1]),
        unfinished=int(unfinished),
        left_out=len(left_out),
        longest_word=longest_word(left_out, tokenizer),
    )
    return [replace(one, reference="") if unfinished and one.sentence == last else one for one in kept], found


def pieces_of(sentence: str, tokenizer: Tokenizer, length: int) -> Pieces:
    """A sentence as sequences of at most `length` tokens with EOS."""

    def fits(part: str) -> bool:
        return len(tokenizer.encode(part)) < length

    parts = [sentence] if fits(sentence) else split(sentence, fits) if all(map(fits, words(sentence))) else []
    return [[*tokenizer.encode(part), EOS] for part in parts]


def within(sentences: Iterable[Pieces], max_sources: int, max_tokens: int | None) -> list[Pieces]:
    """The first sentences, until they fill `max_sources`, whole and up to `max_tokens` tokens in total, but at least one."""
    used: list[Pieces] = []
    num_sources = num_tokens = 0
    for parts in sentences:
        num_tokens += sum(map(len, parts))
        if num_sources and max_tokens is not None and num_tokens > max_tokens:
            break
        used.append(parts)
        num_sources += len(parts)
        if num_sources >= max_sources:
            break
    return used


def longest_word(sentences: Iterable[str], tokenizer: Tokenizer) -> int:
    """Tokens of the longest word; 0 without sentences."""
    return max((len(tokenizer.encode(word)) for sentence in sentences for word in words(sentence)), default=0)


def refuse_too_long(text: ParallelText, tokenizer: Tokenizer, length: int) -> None:
    """UsageError with a count if sentences have more than `length` tokens with EOS."""
    sizes = [len(tokenizer.encode(source)) for source, _ in text.pairs]
    if number := sum(size >= length for size in sizes):
        raise UsageError(
            f"data {text.name}: {number} of {len(sizes)} sources have more than {length - 1} tokens; the longest has {max(sizes)}",
            f"Split them with --too-long split, or raise the limit with --set load.sequence_length={max(sizes) + 1}.",
        )


def nothing_left(text: ParallelText, tokenizer: Tokenizer, length: int) -> UsageError:
    """The error of a text in which no sentence can be split."""
    longest = longest_word((source for source, _ in text.pairs), tokenizer)
    return UsageError(
        f"data {text.name}: all {len(text.pairs)} sources have a word of more than {length - 1} tokens; the longest has {longest}",
        f"Raise the limit with --set load.sequence_length={longest + 1}.",
    )
