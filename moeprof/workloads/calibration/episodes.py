"""What a model does with excerpts: a language model scores them, an encoder-decoder encodes them and generates after them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch

from moeprof.huggingface.model import CachedGeneration
from moeprof.instrument.step import make_step
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.workloads.batches import Batch, pad
from moeprof.workloads.calibration.halves import Excerpt
from moeprof.workloads.episodes import DecodeEpisode, Episode, ForwardEpisode, Generation
from moeprof.workloads.huggingface import score as score_huggingface
from moeprof.workloads.language_modelling import score
from moeprof.workloads.tokenizers import EOS, make_tokenizer
from moeprof.workloads.translation import TranslationGeneration


def episodes(recipe: Recipe, excerpts: Sequence[Excerpt]) -> Iterator[Episode]:
    """Batches of excerpts of one domain and of similar length; the number of a sequence is that of its excerpt."""
    ours = not isinstance(recipe.model, HuggingFaceSection)
    for index, batch in enumerate(batches(excerpts, recipe.load.batch_size)):
        if recipe.workload == "lm":
            yield ForwardEpisode("score", batch, recipe.measure.device, score if ours else score_huggingface)
        else:
            yield translation(recipe, batch, index)


def batches(excerpts: Sequence[Excerpt], size: int) -> Iterator[Batch]:
    """All excerpts, the longest of a domain first, in padded batches of at most `size`."""
    order = sorted(range(len(excerpts)), key=lambda number: (excerpts[number].domain, -len(excerpts[number].tokens), number))
    for domain, found in groupby(order, key=lambda number: excerpts[number].domain):
        numbers = list(found)
        for start in range(0, len(numbers), size):
            chosen = numbers[start : start + size]
            batch = pad(domain, 0, [excerpts[number].tokens for number in chosen], None, 0)
            yield replace(batch, sequence_B=np.array(chosen))


def translation(recipe: Recipe, batch: Batch, index: int) -> DecodeEpisode:
    """Greedy generation after the batch was encoded."""
    begin = begin_huggingface if isinstance(recipe.model, HuggingFaceSection) else begin_own
    return DecodeEpisode(
        batch=batch,
        first_step=index * recipe.load.decode_steps,
        first_position=0,
        max_tokens=recipe.load.decode_steps,
        stop=EOS if begin is begin_own else None,
        device=recipe.measure.device,
        begin=partial(begin, recipe, batch),
        reads="encode",
    )


def begin_own(recipe: Recipe, batch: Batch, model: Any) -> Generation:
    """Generation by a translation model of moeprof's own, into the language that the domain names."""
    own = recipe.own_model
    tag = make_tokenizer(own.tokenizer, own.vocab_size, own.checkpoint).tag(batch.domain.rpartition("-")[2])
    tags_B = torch.full((len(batch.tokens_BL),), tag, device=recipe.measure.device)
    return TranslationGeneration(model, batch, tags_B, recipe.load.decode_steps)


def begin_huggingface(recipe: Recipe, batch: Batch, model: Any) -> Generation:
    """Generation by an encoder-decoder of transformers."""
    device = recipe.measure.device
    step = make_step("encode", batch.index, batch.domain, batch.tokens_BL, batch.real_BL, batch.sequence_B, 0, device)
    return CachedGeneration.after_source(model, torch.from_numpy(batch.tokens_BL).to(device), step)
