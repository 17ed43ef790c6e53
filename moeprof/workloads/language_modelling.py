"""The LM workload: whole sequences scored in one pass, and tokens generated one by one after a prompt."""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from moeprof.instrument.step import Step, make_step
from moeprof.models.language_model import LanguageModel
from moeprof.parallel.group import ALONE, Group
from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.system.inputs import InputFile
from moeprof.workloads.batches import Batch, make_batches, mixed
from moeprof.workloads.corpora import LM_DOMAINS, lm_text
from moeprof.workloads.episodes import DecodeEpisode, Episode, ForwardEpisode, with_settled_tokens
from moeprof.workloads.text import Text, hash_of, read_documents
from moeprof.workloads.tokenizers import BOS, EOS, Tokenizer, make_tokenizer

if TYPE_CHECKING:
    from moeprof.records.run.run import FittedText

T = TypeVar("T")

CHARS_PER_TOKEN = {"bytes": 1, "words": 8, "hashed": 8}
"""Characters per token to read in a first attempt."""


class LanguageModelling:
    """Texts of one or several domains, cut into sequences that begin with BOS."""

    def __init__(self, recipe: Recipe, group: Group = ALONE) -> None:
        self.recipe, self.group = recipe, group
        self.tokenizer = make_tokenizer(recipe.own_model.tokenizer, recipe.own_model.vocab_size)
        self.text_hashes: dict[str, str] = {}
        self.fitted: dict[str, FittedText] = {}
        self.batches: list[Batch] = []
        load = recipe.load
        for domain in recipe.data.files or default_domains(recipe):
            text = self.read(domain)
            self.text_hashes[domain] = text.sha256
            self.batches += make_batches(
                domain,
                sequences(text, self.tokenizer, load.sequence_length, self.max_tokens),
                load.batch_size,
                max_batches=load.batches,
                fixed_length=load.sequence_length if recipe.gating.padding == "fixed" else None,
                first_batch=len(self.batches),
                group=group,
            )

    @property
    def max_tokens(self) -> int:
        """Tokens of a domain that all ranks together can use."""
        load = self.recipe.load
        needed = self.group.size * load.batches * load.batch_size * load.sequence_length
        return min(needed, self.recipe.data.max_tokens or needed)

    def read(self, domain: str) -> Text:
        """A domain's text up to `max_tokens` tokens, or all of it."""
        source = source_of(self.recipe, domain)
        return long_enough(
            lambda max_chars: beginning(domain, source, max_chars),
            lambda text: len(stream(text, self.tokenizer)) >= self.max_tokens,
            self.max_tokens * CHARS_PER_TOKEN[self.recipe.own_model.tokenizer],
        )

    def episodes(self, phase: str) -> list[Episode]:
        """One episode per batch; for `decode` only batches whose sequences are at least as long as the prompt."""
        if phase == "score":
            return [ForwardEpisode("score", batch, self.recipe.measure.device, score) for batch in self.batches]
        length = self.recipe.load.prompt_length
        return [self.decode(batch) for batch in self.batches if batch.shortest >= length]

    def mixture(self, phase: str, episodes: Sequence[Episode], size: int) -> Episode:
        """One batch of sequences of all domains."""
        batch = mixed([episode.batch for episode in episodes], size)
        if phase == "score":
            return ForwardEpisode("score", batch, self.recipe.measure.device, score)
        return with_settled_tokens(self.decode(batch), [episode for episode in episodes if isinstance(episode, DecodeEpisode)])

    def decode(self, batch: Batch) -> DecodeEpisode:
        """Greedy continuation of each sequence's first tokens."""
        load, device = self.recipe.load, self.recipe.measure.device
        prompt_BL = torch.from_numpy(batch.tokens_BL[:, : load.prompt_length].copy()).to(device)
        return DecodeEpisode(
            batch=batch,
            first_step=batch.index * load.decode_steps,
            first_position=load.prompt_length,
            max_tokens=load.decode_steps,
            stop=None,
            device=device,
            group=self.group,
            begin=lambda model: PromptGeneration(
                model, prompt_BL, prompt_step(batch, load.prompt_length, device), load.decode_steps
            ),
        )


def source_of(recipe: Recipe, domain: str) -> InputFile | None:
    """The user's text, which is read from one object so that a pipe is read once; None for the default text."""
    return InputFile(Path(str(recipe.data.files[domain]))) if recipe.data.files else None


def beginning(domain: str, source: InputFile | None, max_chars: int) -> Text:
    """The first characters of the user's text or, without one, of the default text."""
    if source:
        return read_documents(domain, source, max_chars)
    text = lm_text(domain, "heldout", max_chars)
    return Text(domain, [text], hash_of([text]))


def long_enough(read: Callable[[int], T], enough: Callable[[T], bool], max_chars: int) -> T:
    """What is read of the first characters, of four times as many as long as it is not enough, or of all that there are."""
    found = read(max_chars)
    while not enough(found):
        max_chars *= 4
        shorter, found = found, read(max_chars)
        if found == shorter:
            break
    return found


def default_domains(recipe: Recipe) -> list[str]:
    """The domains of the default text that the recipe asks for."""
    wanted = recipe.data.domains or list(LM_DOMAINS)
    if foreign := [domain for domain in wanted if domain not in LM_DOMAINS]:
        raise UsageError(f"data.domains: unknown default domain {foreign[0]!r}", f"Known are {', '.join(LM_DOMAINS)}.")
    return wanted


def sequences(text: Text, tokenizer: Tokenizer, length: int, max_tokens: int) -> list[list[int]]:
    """All documents concatenated and cut to sequences of `length` tokens, including BOS; a remainder is kept only if alone."""
    tokens = stream(text, tokenizer)[:max_tokens]
    cut = [[BOS, *tokens[start : start + length - 1]] for start in range(0, len(tokens), length - 1)]
    return cut if len(cut) == 1 or len(cut[-1]) == length else cut[:-1]


def stream(text: Text, tokenizer: Tokenizer) -> list[int]:
    """All documents concatenated, each followed by EOS."""
    return list(chain.from_iterable([*tokenizer.encode(document), EOS] for document in text.documents))


def score(model: LanguageModel, tokens_BL: Tensor, step: Step) -> Tensor:
    """Logits (B, L, V) of all positions."""
    logits_BLV: Tensor = model(tokens_BL, step)
    return logits_BLV


def prompt_step(batch: Batch, length: int, device: str) -> Step:
    """The forward pass over the prompts, which is not recorded."""
    tokens_BL, real_BL = batch.tokens_BL[:, :length], batch.real_BL[:, :length]
    return make_step("prefill", batch.index, batch.domain, tokens_BL, real_BL, batch.sequence_B, 0, device)


class PromptGeneration:
    """Generation by a language model after its prompts."""

    def __init__(self, model: LanguageModel, prompt_BL: Tensor, step: Step, num_steps: int) -> None:
        self.model, self.prompt_length = model, prompt_BL.shape[1]
        self.caches = model.empty_caches(len(prompt_BL), self.prompt_length + num_steps)
        self.first_B = model(prompt_BL, step, self.caches)[:, -1].argmax(dim=1)

    def forward(self, tokens_B1: Tensor, step: Step) -> Tensor:
        """Logits of the next token."""
        logits_B1V: Tensor = self.model(tokens_B1, step, self.caches)
        return logits_B1V

    def rewind(self) -> None:
        """Discards all tokens after the prompts."""
        for cache in self.caches:
            cache.length = self.prompt_length
