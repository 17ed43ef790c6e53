"""Training text, held-out text, and the batches (lessons) made of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from moeprof.records.errors import UsageError
from moeprof.records.recipe.model import ModelSection
from moeprof.records.recipe.recipe import DOCUMENTATION, Recipe, TrainSection
from moeprof.studies.train.lessons import Lesson, lesson
from moeprof.workloads.corpora import Split, lm_text, mt_pairs
from moeprof.workloads.documentation import documentation
from moeprof.workloads.language_modelling import default_domains
from moeprof.workloads.text import hash_of, read_documents, read_pairs
from moeprof.workloads.tokenizers import BOS, EOS, ByteTokenizer, Tokenizer, make_tokenizer
from moeprof.workloads.translation import default_languages

HELDOUT_SHARE = 10
"""The last 1 / HELDOUT_SHARE of the user's own files is held out."""

POOL = 8
"""Number of batches that are drawn together and sorted, so that a batch has sentences of similar length."""


class Corpus(Protocol):
    """Training and held-out text of all domains of a recipe."""

    hashes: dict[str, str]
    """SHA-256 of every domain's training text."""

    def lesson(self, number: int) -> Lesson:
        """The batch of update `number`; it depends only on the seed and the number."""
        ...

    def heldout(self, per_domain: int) -> dict[str, Lesson]:
        """One batch per domain that is never trained on."""
        ...


def make_corpus(recipe: Recipe) -> Corpus:
    """The recipe's text; UsageError if it is too small."""
    return PairCorpus(recipe) if recipe.workload == "mt" else TextCorpus(recipe)


def generator(train: TrainSection, number: int) -> np.random.Generator:
    """The random number generator of one update."""
    return np.random.Generator(np.random.Philox(key=[train.seed, number]))


def text_tokenizer(recipe: Recipe) -> Tokenizer:
    """The tokenizer of the recipe's model; a Hugging Face model is trained on bytes."""
    model = recipe.model
    return make_tokenizer(model.tokenizer, model.vocab_size) if isinstance(model, ModelSection) else ByteTokenizer()


@dataclass(frozen=True, eq=False)
class SplitText:
    """Token ids of one domain."""

    train: npt.NDArray[np.uint16]
    heldout: npt.NDArray[np.uint16]


class TextCorpus:
    """Windows of consecutive text after BOS; the documentation has its share, and all other domains are equally likely."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.train = recipe, recipe.train
        self.length = recipe.train.sequence_length - 1
        self.tokenizer = text_tokenizer(recipe)
        self.hashes: dict[str, str] = {}
        self.domains = list(recipe.data.files or default_domains(recipe))
        additional = [DOCUMENTATION] if recipe.train.documentation else []
        self.texts = {domain: self.read(domain) for domain in self.domains + additional}

    def read(self, domain: str) -> SplitText:
        """Training and held-out tokens."""
        if domain in self.recipe.data.files:
            split = self.split_file(domain)
        elif domain in self.domains:
            held = lm_text(domain, "heldout", self.train.heldout_sequences * self.length * 8)
            split = self.split(domain, [lm_text(domain, "train", self.train.corpus_size)], [held])
        else:
            release = str(self.train.documentation)
            split = self.split(domain, documentation(release, "train"), documentation(release, "heldout"))
        if len(split.train) < 2 * self.length or len(split.heldout) < self.length:
            raise too_small(domain, f"{len(split.train)} training tokens", f"{2 * self.length}")
        return split

    def split_file(self, domain: str) -> SplitText:
        """The tokens of the user's file, of which the last are held out."""
        documents = read_documents(domain, Path(str(self.recipe.data.files[domain])), self.train.corpus_size).documents
        stream = self.split(domain, documents, []).train
        cut = max(len(stream) - max(len(stream) // HELDOUT_SHARE, self.length), 0)
        return SplitText(stream[:cut], stream[cut:])

    def split(self, domain: str, documents: Sequence[str], held: Sequence[str]) -> SplitText:
        """The tokens of both parts of a domain, of which the first is hashed."""
        self.hashes[domain] = hash_of(documents)
        return SplitText(self.encode(documents), self.encode(held))

    def encode(self, documents: Sequence[str]) -> npt.NDArray[np.uint16]:
        """The documents concatenated, each followed by EOS."""
        ids = chain.from_iterable([*self.tokenizer.encode(document), EOS] for document in documents)
        return np.fromiter(ids, np.uint16)

    def lesson(self, number: int) -> Lesson:
        random = generator(self.train, number)
        domains = self.drawn(random, self.share(number))
        chosen = [self.texts[domain].train for domain in domains]
        starts = [int(random.integers(len(stream) - self.length + 1)) for stream in chosen]
        drawn = lesson([self.window(stream, start) for stream, start in zip(chosen, starts, strict=True)])
        documented_B = np.array([domain == DOCUMENTATION for domain in domains])
        if self.train.documentation_noise:
            self.disturb(drawn.tokens_BL.numpy()[:, 1:], documented_B, self.train.documentation_noise, random)
        if self.train.documentation_smoothing:
            self.disturb(drawn.targets_BL.numpy(), documented_B, self.train.documentation_smoothing, random)
        return drawn

    def disturb(
        self, tokens_BL: npt.NDArray[np.int64], documented_B: npt.NDArray[np.bool_], share: float, random: np.random.Generator
    ) -> None:
        """Replaces a share of the documentation's tokens by tokens drawn from all of it."""
        text = self.texts[DOCUMENTATION].train
        others_BL = text[random.integers(len(text), size=tokens_BL.shape)]
        replaced_BL = (random.random(tokens_BL.shape) < share) & documented_B[:, None]
        tokens_BL[replaced_BL] = others_BL[replaced_BL]

    def share(self, number: int) -> float:
        """The expected share of the documentation in update `number`."""
        later = self.train.documentation_steps is not None and number >= self.train.documentation_steps
        return self.train.documentation_later_share if later else self.train.documentation_share

    def drawn(self, random: np.random.Generator, share: float) -> list[str]:
        """The domain of every sequence of a batch, of which the documentation has an expected share."""
        size = self.train.batch_size
        domains = [self.domains[index] for index in random.integers(len(self.domains), size=size)]
        if self.train.documentation is None:
            return domains
        documented = random.random(size) < share
        return [DOCUMENTATION if drawn else domain for drawn, domain in zip(documented, domains, strict=True)]

    def heldout(self, per_domain: int) -> dict[str, Lesson]:
        return {domain: lesson(self.windows(text.heldout, per_domain)) for domain, text in self.texts.items()}

    def windows(self, stream: npt.NDArray[np.uint16], count: int) -> list[list[int]]:
        """The first `count` items, or all if there are fewer."""
        starts = range(0, len(stream) - self.length + 1, self.length)[:count]
        return [self.window(stream, start) for start in starts]

    def window(self, stream: npt.NDArray[np.uint16], start: int) -> list[int]:
        """Sequences cut as in the workload."""
        return [BOS, *stream[start : start + self.length].tolist()]


TaggedPair = tuple[str, str, str]
"""Language, source and target of a sentence pair."""


class PairCorpus:
    """Sentence pairs, languages mixed in a batch; the decoder's first token is the tag of the target language."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.train = recipe, recipe.train
        self.tokenizer = make_tokenizer(recipe.own_model.tokenizer, recipe.own_model.vocab_size)
        self.hashes: dict[str, str] = {}
        self.pairs: list[TaggedPair] = []
        self.held: dict[str, list[TaggedPair]] = {}
        for language in recipe.data.files or default_languages(recipe):
            pairs, self.held[language] = self.read(language)
            self.hashes[language] = hash_of(side for pair in pairs for side in pair[1:])
            self.pairs += pairs

    def read(self, language: str) -> tuple[list[TaggedPair], list[TaggedPair]]:
        """Training and held-out pairs."""
        if files := self.recipe.data.files:
            pairs = read_pairs(language, files[language], self.train.corpus_size).pairs
            cut = len(pairs) - max(len(pairs) // HELDOUT_SHARE, 1)
            train, held = pairs[:cut], pairs[cut:]
        else:
            train, held = self.made(language, "train"), self.made(language, "heldout")
        if len(train) < self.train.batch_size:
            raise too_small(language, f"{len(train)} training pairs", f"a batch of {self.train.batch_size}")
        return [(language, *pair) for pair in train], [(language, *pair) for pair in held]

    def made(self, language: str, split: Split) -> list[tuple[str, str]]:
        """Training and held-out pairs of the default text."""
        return mt_pairs(language, split, self.train.corpus_size if split == "train" else self.train.heldout_sequences * 8)

    def lesson(self, number: int) -> Lesson:
        random, size = generator(self.train, number), self.train.batch_size
        pool = [self.pairs[index] for index in random.integers(len(self.pairs), size=POOL * size)]
        pool.sort(key=lambda pair: pair[1].count(" "))
        first = int(random.integers(POOL)) * size
        return self.taught(pool[first : first + size])

    def heldout(self, per_domain: int) -> dict[str, Lesson]:
        return {language: self.taught(pairs[:per_domain]) for language, pairs in self.held.items()}

    def taught(self, pairs: Sequence[TaggedPair]) -> Lesson:
        """Token ids of a pair: the source with EOS, and the tag, target and EOS."""
        length, encode = self.train.sequence_length, self.tokenizer.encode
        sources = [[*encode(source)[: length - 1], EOS] for _, source, _ in pairs]
        tags = [self.tokenizer.tag(language.rpartition("-")[2]) for language, _, _ in pairs]
        targets = [[tag, *encode(pair[2])[: length - 1], EOS] for tag, pair in zip(tags, pairs, strict=True)]
        return lesson(targets, sources)


def too_small(domain: str, found: str, needed: str) -> UsageError:
    """The error of a corpus with less text than one batch."""
    return UsageError(
        f"data {domain}: too small: {found}, at least {needed} needed",
        "Give more text, or lower train.sequence_length or train.batch_size with --set.",
    )
