"""Batches of a few experts, drawn by hypothesis or with some locality."""

import numpy as np
from hypothesis import strategies as st

from moeprof.policies.eviction.registry import EVICTION

EVERY_POLICY = [*EVICTION, *(f"inactive-first+{tail}" for tail in EVICTION)]

Batches = list[list[int]]


def drawn_batches(num_experts: int = 6, longest: int = 20) -> st.SearchStrategy[Batches]:
    """Batches that use an expert at most once each, in any order."""
    batch = st.lists(st.integers(0, num_experts - 1), min_size=1, max_size=num_experts, unique=True)
    return st.lists(batch, min_size=1, max_size=longest)


def sticky_batches(num_experts: int, num_active: int, stay: float, num_batches: int, seed: int = 0) -> Batches:
    """`num_active` experts a batch, in id order; each is used again by the next batch with probability `stay`."""
    generator = np.random.default_rng(seed)
    active = set(range(num_active))
    batches = []
    for _ in range(num_batches):
        kept = {expert for expert in sorted(active) if generator.random() < stay}
        others = [expert for expert in range(num_experts) if expert not in kept]
        active = kept | set(generator.choice(others, num_active - len(kept), replace=False).tolist())
        batches.append(sorted(active))
    return batches
