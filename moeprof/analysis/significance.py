"""Whether two series of rounds differ: a rank test, its correction over a family, an interval of the ratio, rounds it would need."""

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from itertools import count
from statistics import NormalDist, fmean, median, stdev
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)

ALPHA = 0.01
"""The chance that a family of comparisons says anything where nothing changed (Holm)."""

POWER = 0.9
RESAMPLES = 2000
EXACT_ROUNDS = 100
"""A side of more rounds is tested by the normal approximation: by then the two agree."""

RANK_EFFICIENCY = 3 / math.pi
"""Of the rank test beside the t test where rounds are normal (Pitman)."""


def p_value(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    """Two-sided Mann-Whitney: exact without ties, else the normal approximation (scipy).

    scipy's own choice is the approximation from 9 rounds on, which is too timid in the tail that Holm's correction asks for.
    """
    from scipy.stats import mannwhitneyu

    untied = len({*baseline, *candidate}) == len(baseline) + len(candidate)
    exact = untied and max(len(baseline), len(candidate)) <= EXACT_ROUNDS
    method: Any = "exact" if exact else "asymptotic"
    test: Any = mannwhitneyu(baseline, candidate, alternative="two-sided", method=method)
    return float(test.pvalue)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Each p value as it counts within its family (Holm 1979): at most ALPHA of all families hold a wrong finding."""
    corrected: dict[K, float] = {}
    running = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, p * (len(p_values) - rank)))
        corrected[name] = running
    return {name: corrected[name] for name in p_values}


def ratio_interval(
    baseline: Sequence[float], candidate: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval (percentiles) of median(candidate) / median(baseline); the same on every call."""
    import numpy as np

    before, after = (
        np.sort(np.asarray(values, float))[middles(len(values), seed + side)].mean(axis=1)
        for side, values in enumerate((baseline, candidate))
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(after / before, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=32)
def middles(num_values: int, seed: int) -> Any:
    """Ranks (RESAMPLES, 2) of the middle two of every resample of sorted values: they do not depend on the values."""
    import numpy as np

    drawn = np.sort(np.random.default_rng(seed).integers(num_values, size=(RESAMPLES, num_values)), axis=1)
    return drawn[:, [(num_values - 1) // 2, num_values // 2]]


def ratio(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    """The median ratio of a round to a round of the other side (Hodges and Lehmann 1963).

    It is what the rank test is about, and surer than the ratio of the medians: 95% of a mean's efficiency instead of 64%.
    """
    return median(after / before for before in baseline for after in candidate)


def fewest_rounds(family: int) -> int:
    """Rounds per side below which even sides without any overlap have no p value small enough."""
    return next(rounds for rounds in count(2) if 2 / math.comb(2 * rounds, rounds) < ALPHA / family)


def rounds_needed(baseline: Sequence[float], candidate: Sequence[float], threshold: float, family: int = 1) -> int:
    """Rounds per side after which the test would find a change of `threshold` with POWER, given the spread that was seen.

    The usual size of a two-sample test of means, divided by the rank test's efficiency.
    """
    spreads = [stdev(values) / fmean(values) for values in (baseline, candidate) if len(values) > 1]
    if not spreads:
        return fewest_rounds(family)
    normal = NormalDist()
    reach = normal.inv_cdf(1 - ALPHA / family / 2) + normal.inv_cdf(POWER)
    rounds = 2 * fmean(spread**2 for spread in spreads) * (reach / threshold) ** 2 / RANK_EFFICIENCY
    return max(fewest_rounds(family), math.ceil(rounds))
