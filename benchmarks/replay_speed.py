"""Accesses per second of processor time of the replay, beside the plain cache that gives the same numbers.

Asked of one core, for the misses at every number of slots of one layer: 10 million accesses a second for LRU and 3 million for MIN at
128 to 512 experts, half a million for inactive-first+lifo at 128; memory linear in the trace. The other policies have no figure to
reach. Exit status 1 if a count differs from the plain one.

python benchmarks/replay_speed.py [--accesses N] [--experts E,E,...]
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from moeprof.analysis.caching.miss_counts import Accesses, misses
from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import DEFAULT, make_eviction

ASKED = {"lru": "10,000,000", "min": "3,000,000", "lfu": "", DEFAULT: "500,000", "fifo": "", "lfu-reset": ""}
"""Accesses per second that a policy is to reach."""

TOP_K, COMPARED, COMPARED_SIZES = 8, 1_000, 4
"""Experts of a batch; how many accesses, and at how many sizes, the plain cache replays too."""


def main() -> int:
    """Prints a line per number of experts, kind of trace and policy; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--accesses", type=int, default=4_000_000)
    parser.add_argument("--experts", default="128,512")
    options = parser.parse_args()
    before = peak_bytes()
    agree = True
    print(
        f"{'experts':>7} {'trace':8} {'policy':22} {'sizes':>5} {'accesses/s':>12} {'asked':>12} {'plain':>12} {'ratio':>8}  counts"
    )
    for num_experts in map(int, options.experts.split(",")):
        for kind, accesses in traces(num_experts, options.accesses):
            for policy in ASKED:
                agree &= measure(num_experts, kind, accesses, policy)
    print(f"plain: from {COMPARED_SIZES} sizes and {COMPARED:,} accesses, at which the counts, shown, must be equal")
    print(f"memory at the peak: {(peak_bytes() - before) / options.accesses:.0f} bytes an access, the trace's 24 among them")
    return 0 if agree else 1


def measure(num_experts: int, kind: str, accesses: Accesses, policy: str) -> bool:
    """Prints one line; whether the counts agree."""
    everywhere = range(1, num_experts + 1)
    misses(first(accesses, TOP_K), policy, everywhere)  # compiles
    rate = len(accesses) / seconds(accesses, policy, everywhere)
    few = first(accesses, COMPARED)
    some = everywhere[num_experts // COMPARED_SIZES - 1 :: num_experts // COMPARED_SIZES]
    start = time.process_time()
    expected = [plain(few, policy, size) for size in some]
    plain_rate = COMPARED / ((time.process_time() - start) / len(some) * len(everywhere))
    agree: bool = misses(few, policy, some)[:, 0].tolist() == expected
    print(
        f"{num_experts:7} {kind:8} {policy:22} {len(everywhere):5} {rate:12,.0f} {ASKED[policy]:>12} {plain_rate:12,.0f} "
        f"{rate / plain_rate:7,.0f}x  {'equal' if agree else 'DIFFERENT'}: {expected}"
    )
    return agree


def seconds(accesses: Accesses, policy: str, sizes: Sequence[int]) -> float:
    """The faster of two replays."""
    taken = []
    for _ in range(2):
        start = time.process_time()
        misses(accesses, policy, sizes)
        taken.append(time.process_time() - start)
    return min(taken)


def plain(accesses: Accesses, policy: str, size: int) -> int:
    """Misses at one size, by the plain cache."""
    cache = Cache(size, make_eviction(policy), future=accesses.blocks_N.tolist())
    batches = np.split(accesses.blocks_N, accesses.starts_K[1:-1])
    return sum(not one.hit for batch in batches for one in cache.batch(batch.tolist()))


def traces(num_experts: int, num_accesses: int) -> Iterator[tuple[str, Accesses]]:
    """Batches of TOP_K experts: evenly chosen, a few of them hot, and one scan after another."""
    generator = np.random.default_rng(0)
    num_batches = num_accesses // TOP_K
    hot_B = np.minimum(generator.zipf(1.3, num_batches), num_experts) * 37
    for kind, first_B in (("even", generator.integers(0, num_experts, num_batches)), ("skewed", hot_B)):
        gaps_BK = generator.integers(1, num_experts // TOP_K + 1, (num_batches, TOP_K))
        yield kind, batched((first_B[:, None] + np.cumsum(gaps_BK, axis=1)) % num_experts)
    yield "scan", batched(np.arange(num_batches * TOP_K).reshape(-1, TOP_K) % num_experts)


def batched(expert_BK: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Accesses:
    """A row is a batch; all are counted together."""
    return Accesses(expert_BK.ravel(), np.repeat(np.arange(len(expert_BK)), TOP_K), np.zeros(expert_BK.size, np.int64))


def first(accesses: Accesses, number: int) -> Accesses:
    """The beginning of a trace."""
    return Accesses(accesses.blocks_N[:number], accesses.batches_N[:number], accesses.groups_N[:number])


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
