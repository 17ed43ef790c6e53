"""The language-model text as its readers get it."""

import hashlib
import lzma
from collections import Counter
from itertools import combinations

import pytest

from moeprof.workloads.corpora import LM_DOMAINS, Split, lm_text

NUM_BYTES = 100_000
SHA256 = {
    ("prose", "train"): "2110b438ca4fc5ed76f1c23aebb0a6460c960af0807804a0cedffab26fc2232a",
    ("prose", "heldout"): "d82e161fddc3edb21b12663ec7e89fc979e162f0b52962d8a501e0b87d040ce2",
    ("code", "train"): "aeabf922dc9688235e35a0b9eeadb8d1712a9c7c1e01b91b2fe1bfe22c2f27c2",
    ("code", "heldout"): "76b007b92b9caf41272d501ffecc5c6d7b4033ab22493348ebc53750e5f5dd9c",
    ("records", "train"): "e92664d61ee29e3272117b5046268e705527784f951e67ee8808ea51ec5eaf4a",
    ("records", "heldout"): "114b6748685ab482d0cd8bae168b8d36b24dc3559a4d3f69889970cb86c56c7e",
}


def bigrams(text: str) -> dict[str, float]:
    """The share of every pair of neighbouring bytes."""
    counts = Counter(text[place : place + 2] for place in range(len(text) - 1))
    return {pair: count / counts.total() for pair, count in counts.items()}


def distance(left: str, right: str) -> float:
    """Half the sum of the differences of the bigram shares: 0 for equal texts, 1 for texts with no pair in common."""
    shares, others = bigrams(left), bigrams(right)
    return sum(abs(shares.get(pair, 0) - others.get(pair, 0)) for pair in shares | others) / 2


def test_there_are_three_domains() -> None:
    assert LM_DOMAINS == ("prose", "code", "records")


@pytest.mark.parametrize("domain", LM_DOMAINS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_text_is_the_same_bytes_on_every_machine(domain: str, split: Split) -> None:
    assert hashlib.sha256(lm_text(domain, split, NUM_BYTES).encode("ascii")).hexdigest() == SHA256[domain, split]


@pytest.mark.parametrize("domain", LM_DOMAINS)
def test_a_longer_text_begins_with_every_shorter_one(domain: str) -> None:
    text = lm_text(domain, "train", 20_000)
    for num_bytes in (0, 1, 333, 4096, 19_999):
        assert lm_text(domain, "train", num_bytes) == text[:num_bytes]
        assert len(lm_text(domain, "train", num_bytes)) == num_bytes


@pytest.mark.parametrize("domain", LM_DOMAINS)
def test_no_heldout_document_of_any_length_is_in_the_training_text(domain: str) -> None:
    training = set(lm_text(domain, "train", 4 * NUM_BYTES).split("\n\n"))
    heldout = [piece for piece in lm_text(domain, "heldout", NUM_BYTES).split("\n\n") if len(piece) > 200]
    assert len(heldout) > 50
    assert not training.intersection(heldout)


def test_domains_differ_in_their_bigrams_while_the_splits_of_one_domain_do_not() -> None:
    texts = {domain: lm_text(domain, "train", NUM_BYTES) for domain in LM_DOMAINS}
    assert all(distance(texts[left], texts[right]) > 0.5 for left, right in combinations(LM_DOMAINS, 2))
    assert all(distance(texts[domain], lm_text(domain, "heldout", NUM_BYTES)) < 0.15 for domain in LM_DOMAINS)


@pytest.mark.parametrize("domain", LM_DOMAINS)
def test_the_text_has_structure_and_is_not_trivial(domain: str) -> None:
    packed = lzma.compress(lm_text(domain, "train", 3 * NUM_BYTES).encode())
    assert 0.5 < 8 * len(packed) / (3 * NUM_BYTES) < 1.8  # bits per byte


def test_an_unknown_domain_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="poetry"):
        lm_text("poetry", "train", 10)
