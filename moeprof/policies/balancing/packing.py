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
    members_KM = np.empty((num_packs, room), np.int64)
    filled_K = np.zeros(num_packs, np.int64)
    load_K = np.zeros(num_packs)
    attached_KN = np.zeros((num_packs, 1 if affinity_NN is None else num_items))
    for item in heaviest_first(weights_N).tolist():
        cost_K = load_K if affinity_NN is None else load_K + attached_KN[:, item]
        pack = int(np.argmin(np.where(filled_K < room, np.round(cost_K, DIGITS), np.inf)))
        members_KM[pack, filled_K[pack]] = item
        filled_K[pack] += 1
        load_K[pack] += weights_N[item]
        if affinity_NN is not None:
            attached_KN[pack] += affinity_NN[item]
    return members_KM
