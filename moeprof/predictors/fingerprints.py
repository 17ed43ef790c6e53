"""Hashes by which text is recognised, wherever it is cut: of windows of tokens, without keeping the text."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

WINDOW = 32
"""Tokens of a window; a shorter text is a window of its own."""

ONE_IN = 4
"""Of the windows of a longer text, one in so many is kept, chosen by its hash, so that the same ones are chosen everywhere."""

KNOWN_SHARE = 0.5
"""A sequence with more known windows than this counts as known."""

MAX_KNOWN = 0.25
"""The largest share of known sequences that may be chance: texts of one kind share phrases, at most a tenth of the default ones."""

BASE, FINAL = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)

Hashes = npt.NDArray[np.uint64]


def windows(tokens: Sequence[int] | npt.NDArray[np.integer]) -> Hashes:
    """The hashes of the chosen windows of a text, sorted."""
    values = np.asarray(tokens).astype(np.uint64) + np.uint64(1)
    size = min(WINDOW, len(values))
    if not size:
        return np.zeros(0, np.uint64)
    count = len(values) - size + 1
    hashes = np.full(count, size, np.uint64)
    for offset in range(size):
        hashes = hashes * BASE + values[offset : offset + count]
    hashes = (hashes ^ hashes >> np.uint64(30)) * FINAL
    hashes ^= hashes >> np.uint64(31)
    return np.unique(hashes if size < WINDOW else hashes[hashes % np.uint64(ONE_IN) == 0])


def fingerprints(documents: Iterable[Sequence[int]]) -> Hashes:
    """The windows that occur in one document only, sorted: what several documents share identifies none of them.

    All windows, if there is no such one.
    """
    different = {tuple(document) for document in documents}
    found, counts = np.unique(np.concatenate([windows(document) for document in different]), return_counts=True)
    return np.asarray(found[counts == 1] if (counts == 1).any() else found)


def known_share(known: Hashes, sequences: Iterable[Sequence[int] | npt.NDArray[np.integer]]) -> float:
    """The share of the sequences whose windows are mostly known; 0 if none of them has a window."""
    shares = [contained(known, found).mean() for sequence in sequences if len(found := windows(sequence))]
    return float(np.mean([share > KNOWN_SHARE for share in shares])) if shares else 0.0


def contained(known: Hashes, found: Hashes) -> npt.NDArray[np.bool_]:
    """Which of the hashes are among the known ones, which are sorted."""
    if not len(known):
        return np.zeros(len(found), bool)
    return np.asarray(known[np.searchsorted(known, found).clip(max=len(known) - 1)] == found)
