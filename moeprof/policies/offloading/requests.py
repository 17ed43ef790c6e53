"""The experts that steps ask of two pools of slots, one of high and one of low precision, in order.

Shape suffixes: N requests, R choices.
"""

from typing import NamedTuple

import numpy as np

from moeprof.policies.offloading.rule import LoadRule
from moeprof.records.arrays import Floats, Ints


class ExpertRequests(NamedTuple):
    """One expert that one step of one layer uses, (N,) each; a step's requests follow each other, and each expert occurs once."""

    layers_N: Ints
    experts_N: Ints
    tokens_N: Ints
    """The number of the step's last token in its sequence, from 0."""
    sequences_N: Ints
    kinds_N: Ints
    """HIGH, LOW or SKIP: what the load rule says if the expert is missing."""

    def part(self, first: int, last: int) -> "ExpertRequests":
        """The requests from `first` up to `last`, which is not included."""
        return ExpertRequests(*(column[first:last] for column in self))

    def starts(self) -> Ints:
        """Where each step begins, and the number of requests, (steps + 1,)."""
        keys_3N = np.stack([self.layers_N, self.tokens_N, self.sequences_N])
        begins_N = np.append(True, (keys_3N[:, 1:] != keys_3N[:, :-1]).any(axis=0))
        return np.append(np.flatnonzero(begins_N[: keys_3N.shape[1]]), keys_3N.shape[1])


def requests_of(
    sequences_R: Ints, tokens_R: Ints, layers_R: Ints, experts_R: Ints, unimportance_R: Floats, rule: LoadRule
) -> ExpertRequests:
    """The requests of choices in any order: steps by sequence, token and layer; in a step experts by id, each as its most important
    choice asks.

    Tokens of a prompt that are one step must have the number of its last token.
    """
    order_R = np.lexsort((unimportance_R, experts_R, layers_R, tokens_R, sequences_R))
    keys_4R = np.stack([layers_R, experts_R, tokens_R, sequences_R])[:, order_R].astype(np.int64)
    first_R = np.append(True, (keys_4R[:, 1:] != keys_4R[:, :-1]).any(axis=0))[: len(order_R)]
    layers_N, experts_N, tokens_N, sequences_N = keys_4R[:, first_R]
    kinds_N = rule.decide(unimportance_R[order_R][first_R]).astype(np.int64)
    return ExpertRequests(layers_N, experts_N, tokens_N, sequences_N, kinds_N)
