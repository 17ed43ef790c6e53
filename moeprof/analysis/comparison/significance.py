"""Significance of timed differences: a rank test over rounds, a t test over processes, Holm's correction, a bootstrap interval.

A side is a list of processes, a process a list of rounds. Rounds of one process share random conditions of that process (memory
layout, cores), so more rounds make one process more certain but say nothing about the next process.
"""

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, count
from statistics import NormalDist, fmean, median, stdev
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)

ProcessRounds = Sequence[Sequence[float]]
"""The rounds of every process of one side."""

ALPHA = 0.01
"""The probability that a family of comparisons reports any change if nothing changed (Holm)."""

POWER = 0.9
RESAMPLES = 2000
FLAT = 1e-12
EXACT_ROUNDS = 100
"""Sides with more rounds use the normal approximation, which then agrees with the exact test."""

MIN_PROCESSES = 3
"""Processes per side that are needed to estimate the spread between processes."""


def p_value(baseline: ProcessRounds, candidate: ProcessRounds, *, paired: bool = False) -> float:
    """The larger p value of the two tests: both rounds and processes must differ significantly.

    With fewer than MIN_PROCESSES per side it is that of the rounds alone, which is no basis for a decision. `paired`: round i of
    process j was interleaved with the same round of the other side.
    """
    of_rounds = rounds_p(pooled(baseline), pooled(candidate))
    return max(of_rounds, processes_p(parts_of(baseline, candidate, paired))) if enough(baseline, candidate) else of_rounds


def enough(*sides: ProcessRounds) -> bool:
    """Whether every side has enough processes to estimate their spread."""
    return min(map(len, sides)) >= MIN_PROCESSES


def rounds_p(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    """Two-sided Mann-Whitney test: exact without ties, else the normal approximation (scipy).

    scipy would choose the approximation from 9 rounds on, which is too conservative for p values as small as Holm's correction needs.
    """
    from scipy.stats import mannwhitneyu

    untied = len({*baseline, *candidate}) == len(baseline) + len(candidate)
    exact = untied and max(len(baseline), len(candidate)) <= EXACT_ROUNDS
    method: Any = "exact" if exact else "asymptotic"
    test: Any = mannwhitneyu(baseline, candidate, alternative="two-sided", method=method)
    return float(test.pvalue)


def parts_of(baseline: ProcessRounds, candidate: ProcessRounds, paired: bool) -> list[ProcessRounds]:
    """Logarithms of rounds whose medians over rounds, averaged over processes, add up to the log of the ratio.

    Paired rounds become one part, the log of their ratio, in which common slowdowns cancel; otherwise there are two parts: the
    candidate's rounds, and the inverse of the baseline's.
    """
    if paired:
        both = zip(baseline, candidate, strict=True)
        return [[[math.log(late / early) for early, late in zip(*rounds, strict=True)] for rounds in both]]
    return [
        [[sign * math.log(value) for value in rounds] for rounds in side] for sign, side in ((1, candidate), (-1, baseline))
    ]


def processes_p(parts: Sequence[ProcessRounds]) -> float:
    """Two-sided t test that the medians of processes add up to 0: Student's for one part, Welch's for two."""
    from scipy.stats import ttest_1samp, ttest_ind

    first, *second = map(medians, parts)
    if all(stdev(series) < FLAT for series in (first, *second)):  # without variation there is no t value
        return 1.0 if abs(effect(parts)) < FLAT else 0.0
    with warnings.catch_warnings(action="ignore"):  # scipy warns about a side without variation
        test: Any = ttest_ind(first, [-value for value in second[0]], equal_var=False) if second else ttest_1samp(first, 0)
    return float(test.pvalue)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """p values corrected for their family (Holm 1979): at most a fraction ALPHA of families contains a false positive."""
    corrected: dict[K, float] = {}
    running = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, p * (len(p_values) - rank)))
        corrected[name] = running
    return {name: corrected[name] for name in p_values}


def effect(parts: Sequence[ProcessRounds]) -> float:
    """The log of the ratio of candidate to baseline."""
    return sum(fmean(medians(part)) for part in parts)


def ratio(baseline: ProcessRounds, candidate: ProcessRounds, *, paired: bool = False) -> float:
    """Candidate / baseline: medians over rounds, geometric mean over processes."""
    return math.exp(effect(parts_of(baseline, candidate, paired)))


def ratio_interval(
    baseline: ProcessRounds, candidate: ProcessRounds, *, paired: bool = False, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of `ratio`, deterministic: processes are resampled, then their rounds."""
    import numpy as np

    effects_B = sum(resampled(part, seed + index) for index, part in enumerate(parts_of(baseline, candidate, paired)))
    tail = (1 - confidence) / 2
    low, high = np.exp(np.quantile(effects_B, [tail, 1 - tail]))
    return float(low), float(high)


def resampled(part: ProcessRounds, seed: int) -> Any:
    """Means (RESAMPLES,) over resampled processes of medians over resampled rounds."""
    import numpy as np

    medians_PB = np.array(
        [np.sort(rounds)[middles(len(rounds), seed, index)].mean(axis=1) for index, rounds in enumerate(part)]
    )
    processes_BP = np.random.default_rng(seed).integers(len(part), size=(RESAMPLES, len(part)))
    return np.take_along_axis(medians_PB.T, processes_BP, axis=1).mean(axis=1)


@lru_cache(maxsize=256)
def middles(num_values: int, *seed: int) -> Any:
    """Indices (RESAMPLES, 2) of the middle two values of every resample of sorted values; they do not depend on the values."""
    import numpy as np

    drawn = np.sort(np.random.default_rng(seed).integers(num_values, size=(RESAMPLES, num_values)), axis=1)
    return drawn[:, [(num_values - 1) // 2, num_values // 2]]


def pooled(side: ProcessRounds) -> list[float]:
    """The rounds of all processes in one list."""
    return list(chain.from_iterable(side))


def medians(part: ProcessRounds) -> list[float]:
    """The median round of every process."""
    return [median(rounds) for rounds in part]


def spread(side: ProcessRounds) -> float | None:
    """The relative standard deviation between processes; None if there is only one."""
    return stdev(math.log(value) for value in medians(side)) if len(side) > 1 else None


def fewest_rounds(family: int) -> int:
    """The smallest number of rounds per side at which sides without overlap reach significance."""
    return next(rounds for rounds in count(2) if 2 / math.comb(2 * rounds, rounds) < ALPHA / family)


def processes_needed(
    baseline: ProcessRounds, candidate: ProcessRounds, threshold: float, family: int = 1, *, paired: bool = False
) -> int:
    """Processes per side with which the tests would find a change of `threshold` with probability POWER, at the observed spread.

    The usual sample size for a test of means from normal quantiles, plus one for the degrees of freedom.
    """
    variance = sum(stdev(medians(part)) ** 2 for part in parts_of(baseline, candidate, paired))
    normal = NormalDist()
    reach = normal.inv_cdf(1 - ALPHA / family / 2) + normal.inv_cdf(POWER)
    processes = math.ceil(variance * (reach / math.log1p(threshold)) ** 2) + 1
    rounds = min(map(len, chain(baseline, candidate)))
    return max(MIN_PROCESSES, math.ceil(fewest_rounds(family) / rounds), processes)
