"""The MT workload: sentences encoded in one pass, and translations generated token by token."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moeprof.instrument.step import Step, make_step
from moeprof.models.translation_model import TranslationModel
from moeprof.parallel.group import ALONE, Group
from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.workloads.batches import Batch, make_batches, mixed
from moeprof.workloads.corpora import MT_LANGUAGES, mt_pairs
from moeprof.workloads.episodes import DecodeEpisode, Episode, ForwardEpisode, with_settled_tokens
from moeprof.workloads.sources import Source, fitted_sources
from moeprof.workloads.text import ParallelText, hash_of, read_pairs
from moeprof.workloads.tokenizers import EOS, make_tokenizer

if TYPE_CHECKING:
    from moeprof.records.run.run import FittedText


class Translation:
    """Sentence pairs of one or several target languages; a domain is a language."""

    def __init__(self, recipe: Recipe, group: Group = ALONE) -> None:
        self.recipe, self.group = recipe, group
        self.tokenizer = make_tokenizer(recipe.own_model.tokenizer, recipe.own_model.vocab_size, recipe.own_model.checkpoint)
        self.text_hashes: dict[str, str] = {}
        self.batches: list[Batch] = []
        self.sources: dict[int, tuple[Source, ...]] = {}
        """What the sequences of a batch are, by its index."""
        self.fitted: dict[str, FittedText] = {}
        load = recipe.load
        for domain in recipe.data.files or default_languages(recipe):
            text = self.read(domain)
            self.text_hashes[domain] = text.sha256
            sources = self.read_sources(text)
            batches = make_batches(
                domain,
                [source.tokens for source in sources],
                load.batch_size,
                max_batches=load.batches,
                fixed_length=load.sequence_length if recipe.gating.padding == "fixed" else None,
                first_batch=len(self.batches),
                group=group,
            )
            before = len(self.batches) * load.batch_size * group.size
            self.sources |= {batch.index: sources_of(batch, sources, before) for batch in batches}
            self.batches += batches

    @property
    def max_sources(self) -> int:
        """Sources of a domain that the batches of all ranks hold."""
        load = self.recipe.load
        return self.group.size * load.batches * load.batch_size

    def read(self, domain: str) -> ParallelText:
        """The user's sentences if the recipe names files, else the default ones."""
        load = self.recipe.load
        num_pairs = self.max_sources * (load.sequence_length if self.recipe.data.fill else 1)
        if self.recipe.data.files:
            return read_pairs(domain, self.recipe.data.files[domain], num_pairs)
        pairs = mt_pairs(domain, "heldout", num_pairs)
        return ParallelText(domain, pairs, hash_of(side for pair in pairs for side in pair))

    def read_sources(self, text: ParallelText) -> list[Source]:
        """Sources with EOS, none longer than the recipe's length; at least one, up to [data] max_tokens in total."""
        if not self.recipe.data.fill:
            sources, self.fitted[text.name] = fitted_sources(text, self.tokenizer, self.recipe, self.max_sources)
            return sources
        length, max_tokens = self.recipe.load.sequence_length, self.recipe.data.max_tokens
        filled = joined((self.tokenizer.encode(source) for source, _ in text.pairs), length - 1)
        sources = [Source([*tokens[: length - 1], EOS]) for tokens in filled]
        return sources if max_tokens is None else sources[: max(max_tokens // length, 1)]

    def episodes(self, phase: str) -> list[Episode]:
        """One episode per batch, in order."""
        if phase == "encode":
            return [ForwardEpisode("encode", batch, self.recipe.measure.device, encode) for batch in self.batches]
        return [self.decode(batch) for batch in self.batches]

    def mixture(self, phase: str, episodes: Sequence[Episode], size: int) -> Episode:
        """One batch of sentences in all languages."""
        batch = mixed([episode.batch for episode in episodes], size)
        if phase == "encode":
            return ForwardEpisode("encode", batch, self.recipe.measure.device, encode)
        return with_settled_tokens(self.decode(batch), [episode for episode in episodes if isinstance(episode, DecodeEpisode)])

    def decode(self, batch: Batch) -> DecodeEpisode:
        """Greedy translation; the first token is the tag of the target language."""
        load, device = self.recipe.load, self.recipe.measure.device
        domains = [self.batches[sequence // (load.batch_size * self.group.size)].domain for sequence in batch.sequence_B]
        tags_B = torch.tensor([self.tokenizer.tag(domain.rpartition("-")[2]) for domain in domains], device=device)
        return DecodeEpisode(
            batch=batch,
            first_step=batch.index * load.decode_steps,
            first_position=0,
            max_tokens=load.decode_steps,
            stop=EOS,
            device=device,
            group=self.group,
            begin=lambda model: TranslationGeneration(model, batch, tags_B, load.decode_steps),
            reads="encode",
            sources=self.sources[batch.index] if batch.domain and not self.recipe.data.fill else (),
        )


def sources_of(batch: Batch, sources: Sequence[Source], before: int) -> tuple[Source, ...]:
    """The source of each sequence of a batch; `before` is the number of sequences of earlier domains."""
    rows = zip(batch.sequence_B, batch.real_BL, strict=True)
    return tuple(sources[number - before] if real_L.any() else Source(()) for number, real_L in rows)


def joined(sentences: Iterable[list[int]], length: int) -> Iterator[list[int]]:
    """Sentences concatenated to `length` tokens each; a remainder is kept only if alone."""
    together: list[int] = []
    alone = True
    for sentence in sentences:
        together += sentence
        if len(together) >= length:
            yield together
            together, alone = [], False
    if together and alone:
        yield together


def default_languages(recipe: Recipe) -> list[str]:
    """The target languages of the default text that the recipe asks for."""
    wanted = recipe.data.domains or list(MT_LANGUAGES)
    if foreign := [language for language in wanted if language not in MT_LANGUAGES]:
        raise UsageError(f"data.domains: unknown default language {foreign[0]!r}", f"Known are {', '.join(MT_LANGUAGES)}.")
    return wanted


def encode(model: TranslationModel, source_BM: Tensor, step: Step) -> Tensor:
    """The encoder's output for all positions."""
    return model.encode(source_BM, step)


class TranslationGeneration:
    """Generation by a translation model after encoding."""

    def __init__(self, model: TranslationModel, batch: Batch, tags_B: Tensor, num_steps: int) -> None:
        self.model, self.first_B, device = model, tags_B, str(tags_B.device)
        source_BM = torch.from_numpy(batch.tokens_BL).to(device)
        step = make_step("encode", batch.index, batch.domain, batch.tokens_BL, batch.real_BL, batch.sequence_B, 0, device)
        self.memory = model.remember(model.encode(source_BM, step), step)
        self.caches = model.empty_caches(len(source_BM), num_steps)

    def forward(self, tokens_B1: Tensor, step: Step) -> Tensor:
        """Logits of the next token."""
        logits_B1V: Tensor = self.model(tokens_B1, self.memory, step, self.caches)
        return logits_B1V

    def rewind(self) -> None:
        """Discards all target tokens."""
        for cache in self.caches:
            cache.length = 0
