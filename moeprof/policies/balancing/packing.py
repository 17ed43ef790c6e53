"""Equally many items in every pack, heaviest first, each into the lightest pack: the loop that all balancers share.

Shape suffixes: N items, K packs, M = N / K items of each pack.
"""

import numpy as np

from moeprof.policies.balancing.balancer import DIGITS
from moeprof.records.arrays import Floats, Ints


def heaviest_first(weights_N: Floats) -> Ints:
    """Items in falling order of weight, equal ones by id, (N,)."""
    return np.argsort(-np.round(weights_N, DIGITS), kind="stable")


def packed(weights_N: Floats, num_packs: int, affinity_NN: Floats | None = None) -> Ints:
    """The items of every pack in order of arrival, (K, M); paper 6.2, EPLB's `balanced_packing`.

    An item goes to the pack with the least load among those with room; ties go to the lowest id. The load is the sum of the
    weights and, with `affinity_NN`, of the affinities to the item that is being placed. If packs have room for one item, item
    n goes to pack n. Weights [5, 4, 3, 2] for two packs:
        item 0 -> pack 0 (load 5), item 1 -> pack 1 (load 4), item 2 -> pack 1 (load 7, full), item 3 -> pack 0
        members_KM = [[0, 3], [1, 2]]
    """
    num_items = len(weights_N)
    room = num_items // num_packs
    if room == 1:
        return np.arange(num_items).reshape(num_packs, 1)
    from moeprof.policies.balancing.loops import fill_packs

    affinities_NN = np.empty((0, 0)) if affinity_NN is None else affinity_NN
    return fill_packs(heaviest_first(weights_N), np.asarray(weights_N, np.float64), num_packs, affinities_NN)
