"""How often each expert was chosen, by domain, step and layer, without the tokens that chose it.

S steps, L layers, E experts.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.limits import MAX_EXPERTS, MAX_LAYERS
from moeprof.records.name import checked_name

ALL_DOMAINS = "all"
"""The name of the only domain of a file that knows none."""


@dataclass(frozen=True)
class ChoiceCounts:
    """Counts of every domain, (S, L, E); S is 1 if the file only has totals. ValueError if they contradict each other."""

    layers: list[int]
    """Absolute numbers, (L,)."""
    counts: dict[str, Ints]
    top_k: int | None = None
    """Choices of a token in each layer; None if unknown."""
    model: str = ""

    def __post_init__(self) -> None:
        shapes = {counts.shape[1:] for counts in self.counts.values() if counts.ndim == 3 and counts.shape[0]}
        if len(shapes) != 1 or any(counts.ndim != 3 for counts in self.counts.values()):
            raise ValueError("layers have different numbers of experts")
        num_layers, num_experts = next(iter(shapes))
        if not 1 <= num_experts <= MAX_EXPERTS:
            raise ValueError(f"{num_experts} experts are more than {MAX_EXPERTS:,}" if num_experts else "no experts")
        if not 1 <= num_layers <= MAX_LAYERS:
            raise ValueError(f"{num_layers} layers are more than {MAX_LAYERS:,}" if num_layers else "no layers")
        if num_layers != len(self.layers) or len(set(self.layers)) < num_layers or min(self.layers) < 0:
            raise ValueError(f"{num_layers} layers of counts do not have {num_layers} different numbers")
        if self.top_k is not None and not 1 <= self.top_k <= num_experts:
            raise ValueError(f"top_k is {self.top_k}, but there are {num_experts} experts")
        for domain, counts_SLE in self.counts.items():
            checked_name(domain)
            if counts_SLE.min() < 0 or counts_SLE.max() >= 2**53:
                raise ValueError(f"{domain} has a count that is negative or above 2^53")
            if not counts_SLE.any():
                raise ValueError(f"{domain} has no choices")

    @property
    def num_experts(self) -> int:
        """The number of experts of every layer, E."""
        return int(next(iter(self.counts.values())).shape[2])

    @property
    def num_steps(self) -> int:
        """The largest number of steps of a domain; 1 if only totals are known."""
        return max(len(counts) for counts in self.counts.values())

    def totals(self, domain: str) -> Ints:
        """Choices of every expert over all steps, (L, E)."""
        return np.asarray(self.counts[domain].sum(axis=0))

    @property
    def remarks(self) -> Iterator[str]:
        """What cannot be right if the counts are complete: layers with different totals, and experts chosen more often than tokens.

        A layer without choices in all domains does not count.
        """
        used_L = np.any([self.totals(domain).any(axis=1) for domain in self.counts], axis=0)
        for domain in self.counts:
            total_LE = self.totals(domain)
            sum_L = total_LE.sum(axis=1)
            least, most = (int(np.flatnonzero(used_L)[find(sum_L[used_L])]) for find in (np.argmin, np.argmax))
            if sum_L[least] < sum_L[most]:
                yield (
                    f"{domain} has {sum_L[least]:,} choices in layer {self.layers[least]}, but {sum_L[most]:,} in layer "
                    f"{self.layers[most]}; every layer should have the same number"
                )
            if self.top_k and len(impossible := np.flatnonzero(total_LE.max(axis=1) * self.top_k > sum_L)):
                at, others = impossible[0], f"; further layers: {len(impossible) - 1}" if len(impossible) > 1 else ""
                yield (
                    f"{domain} has {total_LE[at].max():,} choices of expert {total_LE[at].argmax()} in layer {self.layers[at]}, but "
                    f"{sum_L[at]:,} choices are {sum_L[at] // self.top_k:,} tokens with {self.top_k} different experts each{others}"
                )

    @property
    def digest(self) -> str:
        """SHA-256 of the counts."""
        listed = {domain: (one[0] if len(one) == 1 else one).tolist() for domain, one in self.counts.items()}
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
