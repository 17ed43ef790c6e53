"""The pass `quality`: how well a trained model does its work under every variant that runs it.

B sequences, L positions, N generated tokens, V vocabulary.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from moeprof.moe.layer import use_variant
from moeprof.parallel.collectives import all_gather_json
from moeprof.parallel.group import Group
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import SCORES, TRANSLATIONS
from moeprof.studies.services import Findings, RunModel, Services
from moeprof.studies.train.checkpoint import read_origin
from moeprof.workloads.episodes import DecodeEpisode, Episode, ForwardEpisode, columns
from moeprof.workloads.tokenizers import FIRST_BYTE, FIRST_WORD, PAD, Tokenizer, make_tokenizer

UNFAMILIAR_RATIO = 1.5
"""Text is out of distribution if its cross-entropy is more than this multiple of that of the hardest training domain."""

PART_ELEMENTS = 2**24
"""Logits that are turned into float64 at a time."""

DROPLESS = Variant(dispatch="dynamic")
"""The variant under which text is scored again without drops."""

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
        scores = domain_scores(services, model, episodes, text)
        services.record(SCORES, score_rows(variant.label, scores))
        if variant == services.runner.baseline:
            notes += unfamiliar(services, model, episodes, text, over_ranks(services.group, scores))
    return notes


def domain_scores(
    services: Services, model: RunModel, episodes: Sequence[Episode], text: ScoredText, domains: Collection[str] = ()
) -> dict[str, Score]:
    """The score of this rank's episodes of these domains, or of all."""
    scores: dict[str, Score] = {}
    for episode in episodes:
        assert isinstance(episode, ForwardEpisode)
        if not domains or episode.domain in domains:
            scores[episode.domain] = scores.get(episode.domain, ZERO) + score(model, episode, text)
            services.progress.advance()
    return scores


def over_ranks(group: Group, scores: Mapping[str, Score]) -> dict[str, Score]:
    """The scores of all ranks together, equal on each."""
    ranks = all_gather_json(group, {domain: astuple(found) for domain, found in scores.items()})
    return {domain: sum((Score(*one[domain]) for one in ranks), ZERO) for domain in scores}


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


def unfamiliar(
    services: Services, model: RunModel, episodes: Sequence[Episode], text: ScoredText, scores: Mapping[str, Score]
) -> Iterator[str]:
    """Remarks on domains that are much harder for the model than those it was trained for, with dropped choices ruled out as the cause."""
    worst = hardest_training(services.recipe)
    hard = [domain for domain, found in scores.items() if worst and is_hard(found, worst)]
    if worst is None or not hard:
        return
    baseline, whole = services.runner.baseline, scores
    if baseline.dispatch_entry.capacity == "fraction" and services.recipe.gating.capacity_fraction < 1:
        use_variant(model, DROPLESS)
        services.progress.stage("score: quality without drops", 0)
        whole = over_ranks(services.group, domain_scores(services, model, episodes, text, hard))
        use_variant(model, baseline)
    yield from (hard_remark(domain, scores[domain], whole[domain], worst) for domain in hard)


def hardest_training(recipe: Recipe) -> float | None:
    """Nats per token on the held-out text of the hardest training domain; None if no checkpoint says so."""
    if recipe.model.checkpoint is None:
        return None
    origin = read_origin(Path(str(recipe.model.checkpoint)))
    return max(origin.curve[-1].heldout.values()) if origin is not None and origin.curve else None


def is_hard(found: Score, worst: float) -> bool:
    """Whether a text is much harder than the hardest training domain."""
    return bool(found.num_tokens) and found.per_token > UNFAMILIAR_RATIO * worst


def hard_remark(domain: str, deployed: Score, whole: Score, worst: float) -> str:
    """Why a domain is hard: the text itself, or choices that are dropped; `whole` is its score without drops."""
    if is_hard(whole, worst):
        return (
            f'"{domain}" is out of distribution ({bits(whole)} bits per token, '
            f"at most {worst / math.log(2):.2f} in the training domains): its routing may not be representative"
        )
    return f'"{domain}" takes {bits(deployed)} bits per token because of dropped choices, {bits(whole)} without drops'


def bits(found: Score) -> str:
    """Mean cross-entropy per token in bits, with two decimals."""
    return f"{found.per_token / math.log(2):.2f}"


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
