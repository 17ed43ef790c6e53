"""The pass `quality`: how well a trained model does its work under every variant that runs it.

B sequences, L positions, N generated tokens, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from moeprof.parallel.collectives import all_gather_json
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.raw_tables import SCORES, TRANSLATIONS
from moeprof.studies.services import Findings, RunModel, Services
from moeprof.studies.train.checkpoint import read_origin
from moeprof.workloads.episodes import DecodeEpisode, Episode, ForwardEpisode, columns
from moeprof.workloads.tokenizers import FIRST_BYTE, FIRST_WORD, PAD, Tokenizer, make_tokenizer

UNFAMILIAR_RATIO = 1.5
"""Text is out of distribution if its cross-entropy is more than this multiple of that of the hardest training domain."""

PART_ELEMENTS = 2**24
"""Logits that are turned into float64 at a time."""

UNFAMILIAR_BYTES = 0.2
"""Text is out of distribution if more than this share of its tokens are bytes, though the model has words."""


@dataclass(frozen=True)
class Score:
    """Cross-entropy of some predicted tokens."""

    nats: float
    num_tokens: int
    num_bytes: int

    def __add__(self, other: "Score") -> "Score":
        return Score(self.nats + other.nats, self.num_tokens + other.num_tokens, self.num_bytes + other.num_bytes)

    @property
    def per_token(self) -> float:
        """Mean cross-entropy per token, nats."""
        return self.nats / self.num_tokens


ZERO = Score(0.0, 0, 0)


def measure_quality(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records cross-entropies (LM score) or translations (MT decode), and notes unfamiliar text; episodes are settled."""
    recipe = services.recipe
    if isinstance(recipe.model, HuggingFaceSection):
        return Findings(measure_scores(services, episodes, text_of(recipe.model)) if phase == "score" else ())
    if not recipe.model.checkpoint or recipe.model.tokenizer == "hashed":
        return Findings()
    tokenizer = make_tokenizer(recipe.model.tokenizer, recipe.model.vocab_size, recipe.model.checkpoint)
    if phase == "score":
        return Findings(measure_scores(services, episodes, OwnText(tokenizer)))
    if phase == "decode":
        measure_translations(services, episodes, tokenizer)
    return Findings(list(byte_remarks(recipe, episodes)) if phase == "encode" else ())


class ScoredText(Protocol):
    """What a score asks of the text behind token ids."""

    def is_text(self, ids: Tensor) -> Tensor:
        """Which ids count: special tokens do not."""

    def num_bytes(self, ids: Sequence[int]) -> int:
        """Bytes of UTF-8 behind ids; 0 if they are not known."""


@dataclass(frozen=True)
class OwnText:
    """Text of moeprof's own tokenizers."""

    tokenizer: Tokenizer

    def is_text(self, ids: Tensor) -> Tensor:
        """All ids but those of special tokens."""
        return ids >= FIRST_BYTE

    def num_bytes(self, ids: Sequence[int]) -> int:
        """Bytes behind the ids, with the blanks that two words imply."""
        return num_bytes(ids, self.tokenizer)


class TokenIds:
    """Token ids without a tokenizer."""

    def is_text(self, ids: Tensor) -> Tensor:
        """All of them, since special tokens are not known."""
        return torch.ones_like(ids, dtype=torch.bool)

    def num_bytes(self, ids: Sequence[int]) -> int:
        """0, because the bytes are not known."""
        return 0


def text_of(model: HuggingFaceSection) -> ScoredText:
    """The text behind the token ids of a Hugging Face model."""
    from moeprof.huggingface.folder import open_folder
    from moeprof.huggingface.tokenizer import load_tokenizer

    folder = open_folder(model.huggingface)
    return load_tokenizer(folder, trust_remote_code=model.trust_remote_code) if folder.has_tokenizer else TokenIds()


def measure_scores(services: Services, episodes: Sequence[Episode], text: ScoredText) -> list[str]:
    """Records the scores of every MoE variant; notes domains that the baseline finds hard."""
    notes: list[str] = []
    for variant in services.runner.routed:  # the dense twin has random weights
        model = services.runner.select(variant)
        services.progress.stage(f"score: quality of {variant.label}", len(episodes))
        scores: dict[str, Score] = {}
        for episode in episodes:
            assert isinstance(episode, ForwardEpisode)
            scores[episode.domain] = scores.get(episode.domain, ZERO) + score(model, episode, text)
            services.progress.advance()
        services.record(SCORES, score_rows(variant.label, scores))
        if variant == services.runner.baseline:
            ranks = all_gather_json(services.group, {domain: astuple(found) for domain, found in scores.items()})
            joint = {domain: sum((Score(*one[domain]) for one in ranks), ZERO) for domain in scores}
            notes += score_remarks(services.recipe, joint)
    return notes


def score_rows(label: str, scores: Mapping[str, Score]) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `scores`."""
    for domain, found in scores.items():
        cells = {"phase": "score", "variant": label, "domain": domain}
        yield cells | {"tokens": found.num_tokens, "bytes": found.num_bytes, "nats": found.nats}


def score(model: RunModel, episode: ForwardEpisode, text: ScoredText) -> Score:
    """The score of one batch: every token but the first of a sequence is predicted, special tokens are left out."""
    logits_BLV: Tensor = episode.ready(model)()
    tokens_BL = torch.from_numpy(episode.batch.tokens_BL).to(logits_BLV.device)
    targets_N = tokens_BL[:, 1:].flatten()
    counted_N = text.is_text(targets_N) & torch.from_numpy(episode.batch.real_BL).to(targets_N.device)[:, 1:].flatten()
    places_N = counted_N.nonzero().flatten()
    logits_NV = logits_BLV[:, :-1].flatten(0, 1)
    parts = torch.split(places_N, max(PART_ELEMENTS // logits_NV.shape[1], 1))
    nats = sum(float(F.cross_entropy(logits_NV[part].double(), targets_N[part], reduction="sum")) for part in parts)
    return Score(nats, len(places_N), sum(text.num_bytes(row[1:]) for row in tokens_BL.tolist()))


def num_bytes(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """Bytes of UTF-8 behind `ids`, with the blanks that two words imply; specials have none."""
    words = sum(len(tokenizer.decode([token]).encode()) for token in ids if token >= FIRST_WORD)
    blanks = sum(left >= FIRST_WORD and right >= FIRST_WORD for left, right in pairwise(ids))
    return sum(FIRST_BYTE <= token < FIRST_WORD for token in ids) + words + blanks


def score_remarks(recipe: Recipe, scores: dict[str, Score]) -> Iterator[str]:
    """Remarks on domains that are much harder for the model than those it was trained for, if a checkpoint says for which."""
    if recipe.model.checkpoint is None:
        return
    origin = read_origin(Path(str(recipe.model.checkpoint)))
    if origin is None or not origin.curve:
        return
    worst = max(origin.curve[-1].heldout.values())
    for domain, found in scores.items():
        if found.num_tokens and found.per_token > UNFAMILIAR_RATIO * worst:
            yield (
                f'"{domain}" is out of distribution ({found.per_token / math.log(2):.2f} bits per token, '
                f"at most {worst / math.log(2):.2f} in the training domains): its routing may not be representative"
            )


def byte_remarks(recipe: Recipe, episodes: Sequence[Episode]) -> Iterator[str]:
    """Remarks on languages whose source the model reads byte by byte."""
    if recipe.own_model.tokenizer != "words":
        return
    for domain in dict.fromkeys(episode.domain for episode in episodes):
        batches = [one.batch for one in episodes if isinstance(one, ForwardEpisode) and one.domain == domain]
        ids = [token for batch in batches for token in batch.tokens_BL.flatten().tolist() if token >= FIRST_BYTE]
        share = sum(token < FIRST_WORD for token in ids) / max(len(ids), 1)
        if share > UNFAMILIAR_BYTES:
            yield (
                f'"{domain}" is out of distribution ({share:.0%} of its source tokens are bytes, not words): '
                "its routing may not be representative"
            )


def measure_translations(services: Services, episodes: Sequence[Episode], tokenizer: Tokenizer) -> None:
    """Records every MoE variant's own greedy translations, if the workload has references."""
    translating = [episode for episode in episodes if isinstance(episode, DecodeEpisode) and episode.sources]
    for variant in services.runner.routed if translating else ():
        model = services.runner.select(variant)
        services.progress.stage(f"decode: quality of {variant.label}", len(translating))
        rows: list[dict[str, Any]] = []
        for episode in translating:
            done = episode if variant == services.runner.baseline else decoded_by(model, episode)
            cells = {"phase": "decode", "variant": variant.label, "domain": episode.domain}
            rows += [cells | row for row in translated(done, tokenizer)]
            services.progress.advance()
        services.record(TRANSLATIONS, rows)


def decoded_by(model: RunModel, episode: DecodeEpisode) -> DecodeEpisode:
    """The same sentences as this model decodes them; the given episode keeps its own tokens."""
    fresh = replace(episode, tokens_NB=[], steps=[])
    fresh.settle(model)
    return fresh


def translated(episode: DecodeEpisode, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """The translation of each source of a settled episode that belongs to a sentence with a reference."""
    for text, source, sequence in zip(
        texts(episode, tokenizer), episode.sources, episode.batch.sequence_B.tolist(), strict=True
    ):
        if source.reference:
            yield {"translation": text, "reference": source.reference, "sentence": source.sentence, "sequence": sequence}


def texts(episode: DecodeEpisode, tokenizer: Tokenizer) -> list[str]:
    """What each sequence of a settled episode became; the first token is the tag, and PAD follows the end."""
    return [tokenizer.decode(token for token in column[1:] if token != PAD) for column in columns(episode)]
