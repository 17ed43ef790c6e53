"""The n-gram model that lm-tiny is compared with is interpolated Kneser-Ney."""

import math
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest

from benchmarks.english import KneserNey

TRAIN = b"the cat sat on the mat; the hat is on the cat. a cat is a cat and that is that"
TEST = b"the rat sat on that mat"


def by_hand(train: bytes, test: bytes, order: int) -> float:
    """Bits per byte with dictionaries and recursion, as in the formula."""
    seen = {
        size: Counter(train[start : start + size] for start in range(len(train) - size + 1)) for size in range(1, order + 2)
    }
    before: dict[bytes, set[int]] = defaultdict(set)
    for size in range(2, order + 1):
        for gram in seen[size]:
            before[gram[1:]].add(gram[0])

    def count(gram: bytes) -> int:
        return seen[order][gram] if len(gram) == order else len(before.get(gram, ()))

    def discount(size: int) -> float:
        counts = [count(gram) for gram in seen[size] if count(gram)]
        return counts.count(1) / (counts.count(1) + 2 * counts.count(2))

    discounts = {size: discount(size) for size in range(1, order + 1)}

    @cache
    def probability(context: bytes, letter: int) -> float:
        lower = probability(context[1:], letter) if context else 1 / 256
        followers = {other: count(context + bytes([other])) for other in range(256)}
        total = sum(followers.values())
        if not total:
            return lower
        less = discounts[len(context) + 1]
        rest = less * sum(found > 0 for found in followers.values()) / total
        return max(followers[letter] - less, 0) / total + rest * lower

    found = [probability(test[max(place - order + 1, 0) : place], letter) for place, letter in enumerate(test)]
    return -sum(math.log2(chance) for chance in found) / len(found)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_formula(order: int) -> None:
    assert KneserNey(TRAIN, order).bits(TEST) == pytest.approx(by_hand(TRAIN, TEST, order), rel=1e-12)


def test_the_probabilities_of_all_bytes_sum_to_one() -> None:
    model, context = KneserNey(TRAIN, 4), b"the"
    before = model.bits(context) * 3
    chances = [2 ** -(model.bits(context + bytes([letter])) * 4 - before) for letter in range(256)]
    assert np.sum(chances) == pytest.approx(1)
