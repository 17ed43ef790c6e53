"""The pass `quality`: how well a trained model does its work under every contender that runs it.

B sequences, L positions, N generated tokens, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from moeprof.models.build import Model
from moeprof.parallel.collectives import all_gather_json
from moeprof.records.metrics.registry import Address, MetricRow
from moeprof.records.recipe.recipe import Recipe
from moeprof.studies.session import Session
from moeprof.studies.train.checkpoint import read_origin
from moeprof.workloads.episodes import DecodeEpisode, Episode, ForwardEpisode, columns
from moeprof.workloads.tokenizers import FIRST_BYTE, FIRST_WORD, PAD, Tokenizer, make_tokenizer

FOREIGN_RATIO = 1.5
"""Text is foreign where its cross-entropy is so many times that of the worst domain the model was trained for."""

FOREIGN_BYTES = 0.2
"""Text is foreign where more than this share of its tokens are bytes, though the model knows words."""


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
        """Nats."""
        return self.nats / self.num_tokens


NOTHING = Score(0.0, 0, 0)


def measure_quality(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes perplexity and bits per byte (LM score), chrF (MT decode) and remarks on foreign text; episodes are settled."""
    recipe = session.recipe
    if not recipe.model.checkpoint or recipe.model.tokenizer == "hashed":
        return
    tokenizer = make_tokenizer(recipe.model.tokenizer, recipe.model.vocab_size)
    measure = {"score": measure_scores, "decode": measure_translations}.get(phase)
    if measure is not None:
        measure(session, episodes, tokenizer)
    if phase == "encode":
        session.writer.record.notes += list(byte_remarks(recipe, episodes))


def measure_scores(session: Session, episodes: Sequence[Episode], tokenizer: Tokenizer) -> None:
    """Perplexity and bits per byte of every MoE contender, and what the baseline's say about the text."""
    for variant in session.contenders:
        if variant.dense:
            continue  # the twin has random weights
        model = session.use(variant)
        session.progress.stage(f"score: quality of {variant.label}", len(episodes))
        scores: dict[str, Score] = {}
        for episode in episodes:
            assert isinstance(episode, ForwardEpisode)
            found = score(model, episode, tokenizer)
            scores[episode.domain] = scores.get(episode.domain, NOTHING) + found
            session.progress.advance()
        everybody = all_gather_json(session.group, {domain: astuple(found) for domain, found in scores.items()})
        scores = {domain: sum((Score(*one[domain]) for one in everybody), NOTHING) for domain in scores}
        session.writer.add_metrics(score_rows(session.recipe, variant.label, scores))
        if variant == session.baseline:
            session.writer.record.notes += list(score_remarks(session.recipe, scores))


def score(model: Model, episode: ForwardEpisode, tokenizer: Tokenizer) -> Score:
    """Of one batch: every token but the first of a sequence is predicted, special tokens are left out."""
    logits_BLV: Tensor = episode.ready(model)()
    tokens_BL = torch.from_numpy(episode.batch.tokens_BL).to(logits_BLV.device)
    targets_N = tokens_BL[:, 1:].flatten()
    counted_N = targets_N >= FIRST_BYTE
    nats = F.cross_entropy(logits_BLV[:, :-1].flatten(0, 1)[counted_N].double(), targets_N[counted_N], reduction="sum")
    return Score(float(nats), int(counted_N.sum()), sum(num_bytes(row[1:], tokenizer) for row in tokens_BL.tolist()))


def num_bytes(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """Bytes of UTF-8 behind `ids`, with the blanks that two words imply; specials have none."""
    words = sum(len(tokenizer.decode([token]).encode()) for token in ids if token >= FIRST_WORD)
    blanks = sum(left >= FIRST_WORD and right >= FIRST_WORD for left, right in pairwise(ids))
    return sum(FIRST_BYTE <= token < FIRST_WORD for token in ids) + words + blanks


def score_rows(recipe: Recipe, label: str, scores: dict[str, Score]) -> Iterator[MetricRow]:
    """By domain, then over all."""
    everything = sum(scores.values(), NOTHING)
    for domain, found in [*scores.items(), ("", everything)]:
        if found.num_bytes and math.isfinite(found.nats):  # a contender whose outputs are no numbers has no quality
            address = address_of(recipe, "score", label, domain)
            forced = recipe.forced
            yield MetricRow("perplexity", math.exp(found.per_token), **address, forced=forced)
            yield MetricRow("bits_per_byte", found.nats / math.log(2) / found.num_bytes, **address, forced=forced)


def score_remarks(recipe: Recipe, scores: dict[str, Score]) -> Iterator[str]:
    """Domains that the model finds much harder than anything it was trained for."""
    origin = read_origin(Path(str(recipe.model.checkpoint)))
    if origin is None or not origin.curve:
        return
    worst = max(origin.curve[-1].heldout.values())
    for domain, found in scores.items():
        if found.num_tokens and found.per_token > FOREIGN_RATIO * worst:
            yield (
                f"{domain}: this text is foreign to the model: {found.per_token / math.log(2):.2f} bits per token, "
                f"{worst / math.log(2):.2f} on the hardest domain it was trained for"
            )


def byte_remarks(recipe: Recipe, episodes: Sequence[Episode]) -> Iterator[str]:
    """Languages whose source the model has to spell."""
    if recipe.model.tokenizer != "words":
        return
    for domain in dict.fromkeys(episode.domain for episode in episodes):
        batches = [one.batch for one in episodes if isinstance(one, ForwardEpisode) and one.domain == domain]
        ids = [token for batch in batches for token in batch.tokens_BL.flatten().tolist() if token >= FIRST_BYTE]
        share = sum(token < FIRST_WORD for token in ids) / max(len(ids), 1)
        if share > FOREIGN_BYTES:
            yield f"{domain}: this text is foreign to the model: {share:.0%} of its source tokens are bytes, not words"


def measure_translations(session: Session, episodes: Sequence[Episode], tokenizer: Tokenizer) -> None:
    """chrF of every MoE contender's own greedy translations, where the workload has references."""
    translating = [episode for episode in episodes if isinstance(episode, DecodeEpisode) and episode.references]
    for variant in session.contenders:
        if variant.dense or not translating:
            continue
        model = session.use(variant)
        session.progress.stage(f"decode: quality of {variant.label}", len(translating))
        pairs: dict[str, list[tuple[str, str]]] = {}
        for episode in translating:
            done = episode if variant == session.baseline else decoded_by(model, episode)
            pairs.setdefault(episode.domain, []).extend(zip(texts(done, tokenizer), episode.references, strict=True))
            session.progress.advance()
        everybody = all_gather_json(session.group, pairs)
        pairs = {domain: [tuple(pair) for one in everybody for pair in one[domain]] for domain in pairs}
        session.writer.add_metrics(chrf_rows(session.recipe, variant.label, pairs))


def decoded_by(model: Model, episode: DecodeEpisode) -> DecodeEpisode:
    """The same sentences as this model decodes them; the given episode keeps its own tokens."""
    fresh = replace(episode, tokens_NB=[], steps=[])
    fresh.settle(model)
    return fresh


def texts(episode: DecodeEpisode, tokenizer: Tokenizer) -> list[str]:
    """What each sequence of a settled episode became; the first token is the tag, and PAD follows the end."""
    return [tokenizer.decode(token for token in column[1:] if token != PAD) for column in columns(episode)]


def chrf_rows(recipe: Recipe, label: str, pairs: dict[str, list[tuple[str, str]]]) -> Iterator[MetricRow]:
    """By language, then over all."""
    everything = [pair for found in pairs.values() for pair in found]
    for domain, found in [*pairs.items(), ("", everything)]:
        address = address_of(recipe, "decode", label, domain)
        yield MetricRow("chrf", chrf(found), **address, forced=recipe.forced)


def chrf(pairs: Sequence[tuple[str, str]]) -> float:
    """Corpus chrF2, 0 to 100, of (translation, reference) pairs."""
    import sacrebleu

    return float(
        sacrebleu.corpus_chrf([translation for translation, _ in pairs], [[reference for _, reference in pairs]]).score
    )


def address_of(recipe: Recipe, phase: str, label: str, domain: str) -> Address:
    """Where a quality stands."""
    return {"workload": recipe.workload, "phase": phase, "variant": label, "domain": domain}
