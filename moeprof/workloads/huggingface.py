"""The workloads of Hugging Face models: text through the model's own tokenizer, or token ids, scored or encoded and then continued."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.model import CachedGeneration, HuggingFaceModel
from moeprof.huggingface.tokenizer import TextTokenizer, load_tokenizer
from moeprof.instrument.step import Step, make_step
from moeprof.parallel.group import ALONE, Group
from moeprof.records.errors import UsageError
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.workloads.batches import Batch, make_batches, mixed
from moeprof.workloads.episodes import DecodeEpisode, Episode, ForwardEpisode, with_settled_tokens
from moeprof.workloads.language_modelling import beginning, default_domains, long_enough, source_of
from moeprof.workloads.text import Text, hash_of, read_token_ids

if TYPE_CHECKING:
    from moeprof.records.run.run import FittedText

CHARS_PER_TOKEN = 8
"""Characters per token to read in a first attempt."""


class HuggingFaceText:
    """Texts of one or several domains, cut into sequences of token ids that begin as the tokenizer lets a text begin."""

    def __init__(self, recipe: Recipe, group: Group = ALONE) -> None:
        """UsageError if the text is too short for a batch, or if sequences are longer than the model allows."""
        assert isinstance(recipe.model, HuggingFaceSection)
        self.recipe, self.group, self.model = recipe, group, recipe.model
        check_length(recipe, self.model)
        self.folder = open_folder(self.model.huggingface)
        self.tokenizer = self.load_tokenizer()
        self.text_hashes: dict[str, str] = {}
        self.fitted: dict[str, FittedText] = {}
        self.batches: list[Batch] = []
        load = recipe.load
        for domain in recipe.data.files or default_domains(recipe):
            self.batches += make_batches(
                domain,
                self.sequences(domain, self.read(domain)),
                load.batch_size,
                max_batches=load.batches,
                fixed_length=None,
                first_batch=len(self.batches),
                group=group,
            )

    def load_tokenizer(self) -> TextTokenizer | None:
        """The tokenizer; None if the folder has none, which token ids do not need."""
        if not self.folder.has_tokenizer and self.recipe.data.files:
            return None
        return load_tokenizer(self.folder, chat=self.model.chat, trust_remote_code=self.model.trust_remote_code)

    @property
    def max_tokens(self) -> int:
        """Tokens of a domain that can be used."""
        load = self.recipe.load
        needed = load.batches * load.batch_size * load.sequence_length
        return min(needed, self.recipe.data.max_tokens or needed)

    def read(self, domain: str) -> list[int]:
        """The ids of a domain's documents, each with the end of a text behind it, at least `max_tokens` if there are as many."""
        source = source_of(self.recipe, domain)
        if source is not None and (documents := read_token_ids(domain, source, self.model.vocab_size)) is not None:
            self.text_hashes[domain] = hash_of(str(tokens) for tokens in documents)
            return list(islice(chain.from_iterable(documents), self.max_tokens))
        if self.tokenizer is None:
            load_tokenizer(self.folder)
        return long_enough(
            lambda max_chars: list(self.encoded(beginning(domain, source, max_chars))),
            lambda tokens: len(tokens) >= self.max_tokens,
            self.max_tokens * CHARS_PER_TOKEN,
        )

    def encoded(self, text: Text) -> Iterator[int]:
        """The ids of all documents of a text, whose hash becomes that of its domain."""
        assert self.tokenizer is not None
        self.text_hashes[text.name] = text.sha256
        for document in text.documents:
            yield from self.tokenizer.encode(document)
            yield from self.tokenizer.end_ids

    def sequences(self, domain: str, tokens: Sequence[int]) -> list[list[int]]:
        """Sequences of the recipe's length, the ids before every text included; UsageError if there are too few for a batch."""
        load, first = self.recipe.load, self.tokenizer.first_ids if self.tokenizer else []
        length = load.sequence_length - len(first)
        cut = [[*first, *tokens[start : start + length]] for start in range(0, min(len(tokens), self.max_tokens), length)]
        whole = [sequence for sequence in cut if len(sequence) == load.sequence_length]
        if len(whole) < load.batch_size:
            shorter = max(len(tokens) // load.batch_size + len(first), 2)
            raise UsageError(
                f"data {domain}: {len(tokens)} tokens are too few for a batch of {load.batch_size} x {load.sequence_length}",
                f"Give more text, or shorter sequences: --set load.sequence_length={shorter}",
            )
        return whole

    def episodes(self, phase: str) -> list[Episode]:
        """One episode per batch, in order."""
        return [self.episode(phase, batch) for batch in self.batches]

    def mixture(self, phase: str, episodes: Sequence[Episode], size: int) -> Episode:
        """One batch of sequences of all domains."""
        found = self.episode(phase, mixed([episode.batch for episode in episodes], size))
        if isinstance(found, DecodeEpisode):
            return with_settled_tokens(found, [episode for episode in episodes if isinstance(episode, DecodeEpisode)])
        return found

    def episode(self, phase: str, batch: Batch) -> Episode:
        """The work of a phase on a batch."""
        if phase == "decode":
            return self.decode(batch)
        return ForwardEpisode(phase, batch, self.recipe.measure.device, score if phase == "score" else encode)

    def decode(self, batch: Batch) -> DecodeEpisode:
        """Greedy continuation of each sequence's first tokens, or of the decoder's first token after an encoder read the sequence."""
        load, device = self.recipe.load, self.recipe.measure.device
        length = load.sequence_length if self.model.encoder_decoder else load.prompt_length
        read_BL, real_BL = batch.tokens_BL[:, :length], batch.real_BL[:, :length]
        phase = "encode" if self.model.encoder_decoder else "prefill"
        step = make_step(phase, batch.index, batch.domain, read_BL, real_BL, batch.sequence_B, 0, device)
        begin = CachedGeneration.after_source if self.model.encoder_decoder else CachedGeneration.after_prompt
        return DecodeEpisode(
            batch=batch,
            first_step=batch.index * load.decode_steps,
            first_position=0 if self.model.encoder_decoder else length,
            max_tokens=load.decode_steps,
            stop=None,
            device=device,
            group=self.group,
            begin=lambda model: begin(model, torch.from_numpy(read_BL.copy()).to(device), step),
            reads="encode" if self.model.encoder_decoder else "prefill",
        )


def check_length(recipe: Recipe, model: HuggingFaceSection) -> None:
    """UsageError if the sequences are longer than the positions of the model."""
    load = recipe.load
    longest = max(load.sequence_length, load.prompt_length + load.decode_steps if "decode" in recipe.phases else 0)
    if model.max_positions and longest > model.max_positions:
        raise UsageError(
            f"model {model.huggingface}: sequences of {longest} tokens, but it has {model.max_positions} positions",
            f"Use shorter ones: --set load.sequence_length={min(load.sequence_length, model.max_positions)} and a shorter "
            "load.prompt_length or load.decode_steps.",
        )


def score(model: HuggingFaceModel, tokens_BL: Tensor, step: Step) -> Tensor:
    """Logits (B, L, V) of all positions."""
    model.use_decoding(False)
    logits_BLV: Tensor = model(tokens_BL, step)
    return logits_BLV


def encode(model: HuggingFaceModel, source_BM: Tensor, step: Step) -> Tensor:
    """The encoder's output (B, M, D) for all positions."""
    model.use_decoding(False)
    memory_BMD: Tensor = model.encode(source_BM, step).last_hidden_state
    return memory_BMD
