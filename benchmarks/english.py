"""How well does lm-tiny predict English that it has not seen? Its bits per byte on WikiText-2 beside those of an n-gram model.

The n-gram model (bytes, order 5, interpolated Kneser-Ney) is trained on the same text: the documentation alone, and all domains.

    python benchmarks/english.py [--text FILE] [--order N]
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from moeprof.models.build import build_model
from moeprof.records.recipe.files import load_recipe
from moeprof.studies.train.heldout import bits, cross_entropies
from moeprof.studies.train.lessons import Lesson, lesson
from moeprof.studies.train.own import OwnLearner
from moeprof.workloads.corpora import LM_DOMAINS, lm_text
from moeprof.workloads.documentation import documentation
from moeprof.workloads.tokenizers import BOS, make_tokenizer

TEXT = Path(__file__).resolve().parents[2] / "shared" / "data" / "lm" / "wikitext2.test.txt"
LENGTHS = (64, 256)
"""Tokens of a sequence, including BOS: those of the recipe's load and of its training."""

BATCH = 64

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def main() -> None:
    """Prints bits per byte of the model, and of the n-gram model on two training texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--order", type=int, default=5)
    options = parser.parse_args()
    if not options.text.is_file():
        print(f"skipped: no text at {options.text}")
        return
    text = options.text.read_bytes()
    for length in LENGTHS:
        print(f"lm-tiny, sequences of {length} tokens: {model_bits(text.decode(), length):.3f} bits per byte", flush=True)
    train = load_recipe("lm-tiny").train
    english = "".join(documentation(str(train.documentation), "train"))
    others = "".join(lm_text(domain, "train", train.corpus_size) for domain in LM_DOMAINS)
    for name, known in (("the documentation", english), ("all training text", english + others)):
        found = KneserNey(known.encode(), options.order).bits(text)
        print(f"order-{options.order} n-gram model of {name}: {found:.3f} bits per byte", flush=True)


def model_bits(text: str, length: int) -> float:
    """Bits per byte of lm-tiny over sequences of `length` tokens; the last bytes, fewer than a sequence, are left out."""
    recipe = load_recipe("lm-tiny")
    learner = OwnLearner(build_model(recipe))
    tokens = make_tokenizer("bytes", recipe.own_model.vocab_size).encode(text)
    starts = range(0, len(tokens) - length + 2, length - 1)
    sequences = [[BOS, *tokens[start : start + length - 1]] for start in starts]
    batches = {str(first): lesson(sequences[first : first + BATCH]) for first in range(0, len(sequences), BATCH)}
    nats = cross_entropies(learner, batches)
    return bits(sum(nats[name] * predicted(batch) for name, batch in batches.items()) / sum(map(predicted, batches.values())))


def predicted(batch: Lesson) -> int:
    """Number of bytes that a batch predicts."""
    return batch.targets_BL.numel()


class KneserNey:
    """An n-gram model of bytes: the counts of every order, discounted, with what is left given to the next lower order.

    Below the highest order, an n-gram counts once for every different byte before it. A discount is n1 / (n1 + 2 n2), with
    n1 and n2 the numbers of n-grams of that order that count 1 and 2.
    """

    def __init__(self, text: bytes, order: int) -> None:
        self.levels = [Level(*counted(text, size, highest=size == order)) for size in range(1, order + 1)]

    def bits(self, text: bytes) -> float:
        """Mean bits per byte; the first bytes have shorter contexts."""
        probabilities = np.full(len(text), 1 / 256)
        for size, level in enumerate(self.levels, start=1):
            probabilities[size - 1 :] = level.interpolated(ngrams(text, size), probabilities[size - 1 :])
        return float(-np.log2(probabilities).mean())


class Level:
    """The n-grams of one order, sorted, with their counts."""

    def __init__(self, grams: Keys, counts: Floats) -> None:
        self.grams, self.counts = grams, counts
        ones, twos = (int((counts == count).sum()) for count in (1, 2))
        self.discount = ones / max(ones + 2 * twos, 1)
        self.contexts, place = np.unique(grams >> np.uint64(8), return_inverse=True)
        self.totals: Floats = np.bincount(place, weights=counts).astype(np.float64)
        self.followers: Floats = np.bincount(place).astype(np.float64)

    def interpolated(self, grams: Keys, lower: Floats) -> Floats:
        """Probabilities of the last bytes of n-grams, from those of the next lower order."""
        contexts = grams >> np.uint64(8)
        total, followers = (looked_up(self.contexts, values, contexts) for values in (self.totals, self.followers))
        kept = np.maximum(looked_up(self.grams, self.counts, grams) - self.discount, 0)
        known = total > 0
        return np.where(known, (kept + self.discount * followers * lower) / np.where(known, total, 1), lower)


def counted(text: bytes, size: int, *, highest: bool) -> tuple[Keys, Floats]:
    """The different n-grams of a text and their counts: in the text, or of different bytes before them."""
    if highest:
        grams, counts = np.unique(ngrams(text, size), return_counts=True)
    else:
        longer = np.unique(ngrams(text, size + 1))
        grams, counts = np.unique(longer & np.uint64(256**size - 1), return_counts=True)
    return grams, counts.astype(np.float64)


def ngrams(text: bytes, size: int) -> Keys:
    """Every n-gram of a text as a number, big-endian; `size` is at most 8."""
    letters = np.frombuffer(text, np.uint8).astype(np.uint64)
    keys = np.zeros(max(len(text) - size + 1, 0), np.uint64)
    for offset in range(size):
        keys = keys << np.uint64(8) | letters[offset : offset + len(keys)]
    return keys


def looked_up(keys: Keys, values: Floats, wanted: Keys) -> Floats:
    """The values of the wanted keys, 0 for those that are not there."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0.0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
