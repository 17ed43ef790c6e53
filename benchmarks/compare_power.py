"""Does the gate cry wolf, or sleep? Simulated comparisons of four gated throughputs, decided as `moeprof compare` decides.

Every round is of a process of its own: recorded separately, or in turns with one of the other side. Rounds have 5% relative
noise, normal, or heavy-tailed (Student's t with 3 degrees of freedom, scaled by 5%). A slow-down is planted in one of the four.
Limits are for normal noise; a step that takes 8% longer lowers the throughput by 7.4% only and is told beside.

    python benchmarks/compare_power.py [--comparisons N] [--seed N]
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moeprof.analysis.comparison.measurement import Measurement, Number
from moeprof.analysis.comparison.verdicts import Rules, findings
from moeprof.records.metrics.row import row_key

NOISE = 0.05
MISSED = "MISSED"
METRICS = [
    row_key("throughput", workload="lm", phase=phase, variant=variant)
    for phase in ("score", "decode")
    for variant in ("static", "dynamic")
]

HOW = {"separately": "", "in turns": "simulated"}
"""How the two sides ran, and the name of the measurement that makes them one."""

Samples = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Samples]


class Case(NamedTuple):
    """What is planted, and how often which answer must come."""

    what: str
    speed: float
    """Of the first metric's candidate, relative; 1 where nothing is planted."""
    rounds: int
    limit: float | None
    """At least so often found; where nothing is planted, at most so often wrong. None: only reported."""

    def told(self, share: float) -> str:
        """The limit and whether it is kept."""
        if self.limit is None:
            return "no limit"
        kept = share <= self.limit if self.speed == 1 else share >= self.limit
        return f"{'at most' if self.speed == 1 else 'at least'} {self.limit:.0%}: {'kept' if kept else MISSED}"


CASES = (
    Case("A/A, said better or worse", 1, 10, 0.01),
    Case("A/A, said better or worse", 1, 20, 0.01),
    Case("throughput 15% lower, found", 0.85, 10, 0.95),
    Case("throughput 8% lower, found", 0.92, 20, 0.90),
    Case("step 8% longer, found", 1 / 1.08, 20, None),
)


def normal(generator: np.random.Generator, rounds: int) -> Samples:
    """Relative speeds of some rounds."""
    return 1 + NOISE * generator.standard_normal(rounds)


def heavy(generator: np.random.Generator, rounds: int) -> Samples:
    """With outliers; a round cannot take less than no time."""
    return np.maximum(1 + NOISE * generator.standard_t(3, rounds), 0.05)


def main() -> None:
    """Prints every share beside its limit; exits with 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    print(f"{options.comparisons} comparisons each, {len(METRICS)} gated metrics, {NOISE:.0%} noise", flush=True)
    cases = [("normal", how, normal, case) for how in HOW for case in CASES]
    cases += [("heavy-tailed", how, heavy, case._replace(limit=None)) for how in HOW for case in CASES[:-1]]
    missed = False
    for index, (noise, how, draw, case) in enumerate(cases):
        generator = np.random.default_rng([options.seed, index])
        share = sum(answer(case, HOW[how], draw, generator) for _ in range(options.comparisons)) / options.comparisons
        print(
            f"  {noise:<12}  {how:<10}  {case.rounds} rounds  {case.what:<27}  {share:7.2%}  ({case.told(share)})", flush=True
        )
        missed |= case.told(share).endswith(MISSED)
    print(f"{time.perf_counter() - start:.0f} s")
    raise SystemExit(missed)


def answer(case: Case, turns: str, draw: Draw, generator: np.random.Generator) -> bool:
    """Of one comparison: whether the planted metric was called worse; where none is planted, any better or worse."""
    before = subject([1000 * draw(generator, case.rounds) for _ in METRICS], turns)
    after = subject([1000 * speed * draw(generator, case.rounds) for speed in (case.speed, 1, 1, 1)], turns)
    verdicts = [one.verdict for one in findings([(before, after)], Rules({}))]
    return verdicts[0] == "worse" if case.speed != 1 else any(one in ("better", "worse") for one in verdicts)


def subject(samples: Sequence[Samples], turns: str) -> Measurement:
    """One side, a process a round."""
    numbers = [
        Number(
            address=address,
            unit="tokens/s",
            kind="timed",
            value=float(np.median(rounds)),
            samples=tuple((one,) for one in rounds),
        )
        for address, rounds in zip(METRICS, samples, strict=True)
    ]
    return Measurement(recipe="simulated", command="characterize", settings={}, machine={}, turns=turns, numbers=tuple(numbers))


if __name__ == "__main__":
    main()
