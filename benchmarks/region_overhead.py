"""What looking on costs: a region by itself, the regions of a step against the step, and whole rounds with and without.

A million regions are entered and left under the timer of the `breakdown` pass. Then every case plays rounds in turns: unobserved,
under the region timer, under the recorder of the `routing` pass. The ratio is that of the medians, and beside it the median of
the ratios of each turn; upper bounds are the 95th percentile over bootstrap samples of whole turns.

    python benchmarks/region_overhead.py [RECIPE:PHASE:ROUNDS ...] [--calls N] [--threads N]
"""

import argparse
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch

from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.clock import synchronized, wall_clock
from moeprof.instrument.probe import observed_by, region
from moeprof.instrument.regions import RegionTimer, cpu_stopwatch, region_timer
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.timing import PreparedRound, collector_paused, interleaved
from moeprof.models.build import build_model
from moeprof.records.recipe.files import load_recipe
from moeprof.records.regions import OTHER
from moeprof.workloads.registry import make_workload

DEFAULT = ["lm-tiny:score:200", "lm-tiny:decode:200", "mt-tiny:encode:200", "mt-tiny:decode:200", "lm-small:score:200"]
REGION_LIMIT, OTHER_LIMIT, LIMITS = 0.01, 0.05, {"breakdown": 1.03, "routing": 1.05}
CHUNK = 1000
BOOTSTRAP = 4000


def main() -> None:
    """Prints the cost of a region, then one block per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=DEFAULT, metavar="RECIPE:PHASE:ROUNDS")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    region_ns = region_cost_ns(arguments.calls)
    with torch.inference_mode():
        for case in arguments.cases:
            name, phase, rounds = case.split(":")
            report(name, phase, int(rounds), region_ns)


def region_cost_ns(calls: int) -> float:
    """Nanoseconds of one region, entered and left under a timer, loop included; settling is off the clock here as in a run."""
    timer = RegionTimer(cpu_stopwatch(wall_clock))
    chunks_ns = []
    with collector_paused():
        for _ in range(calls // CHUNK):
            started = wall_clock()
            timer.observing(enter_regions)()
            chunks_ns.append(wall_clock() - started)
            timer.settle()
    mean_ns = sum(chunks_ns) / calls
    print(
        f"one region: {mean_ns:.0f} ns, mean of {calls:,} (median {median(chunks_ns) / CHUNK:.0f}, best {min(chunks_ns) / CHUNK:.0f})"
    )
    return mean_ns


def enter_regions() -> None:
    """A thousand of them, with nothing inside."""
    for _ in range(CHUNK):
        with region("gate", "3"):
            pass


def report(name: str, phase: str, rounds: int, region_ns: float) -> None:
    """Times a case in turns and prints its ratios beside their limits."""
    recipe = load_recipe(name)
    device = recipe.measure.device
    model, episode = build_model(recipe), make_workload(recipe).episodes(phase)[0]
    episode.settle(model)
    play = episode.ready(model)
    timer = region_timer(device, wall_clock)
    regions = count_regions(timer, play)
    plays: dict[str, Callable[[], object]] = {
        "unobserved": play,
        "breakdown": timer.observing(play),
        "routing": recording(play),
    }
    prepared = {name: PreparedRound(one) for name, one in plays.items()}
    samples = interleaved(prepared, rounds=rounds, warmup=3, clock=synchronized(device), between=timer.settle)
    plain_ns = median(samples["unobserved"])
    part = regions * region_ns / plain_ns
    print(f"\n{name} {phase}: {plain_ns / len(episode.steps) / 1e6:.2f} ms a step, {len(episode.steps)} steps a round")
    print(
        f"  {regions / len(episode.steps):.0f} regions a step: {part:.4%} of it  {verdict(part, REGION_LIMIT)} (limit {REGION_LIMIT:.0%})"
    )
    other = median(times[OTHER, ""] / sum(times.values()) for times in timer.rounds)
    judged = f"  {verdict(other, OTHER_LIMIT)} (limit {OTHER_LIMIT:.0%})" if phase == "score" else ""
    print(f"  outside of all regions: {other:.2%}{judged}")
    for instrument, limit in LIMITS.items():
        (ratio, upper), (pairs, pairs_upper) = ratios(samples[instrument], samples["unobserved"])
        print(
            f"  {instrument:<9} / unobserved over {rounds} rounds: {ratio:.4f}, 95% upper bound {upper:.4f}  "
            f"{verdict(upper, limit)} (limit {limit}); median of pairs {pairs:.4f}, bound {pairs_upper:.4f}"
        )


def count_regions(timer: RegionTimer, play: Callable[[], object]) -> int:
    """Regions of one round."""
    timer.observing(play)()
    number = len(timer.keys)
    timer.settle()
    return number


def recording(play: Callable[[], object]) -> Callable[[], None]:
    """`play` as a round of the routing pass, with a recorder of its own."""

    def observed() -> None:
        with observed_by(RoutingRecorder()):
            play()

    return observed


def ratios(observed: Sequence[int], unobserved: Sequence[int]) -> list[tuple[float, float]]:
    """Ratio of the medians, and median of the ratios of each turn: each with its 95th percentile over bootstrap samples.

    Observed and unobserved of one turn stay together. The second estimate stands drifts of the machine's speed.
    """
    pairs_2R = np.array([observed, unobserved], float)
    num_rounds = pairs_2R.shape[1]
    drawn_SR = np.random.default_rng(0).integers(num_rounds, size=(BOOTSTRAP, num_rounds))
    medians_2S = np.median(pairs_2R[:, drawn_SR], axis=2)
    turns_R = pairs_2R[0] / pairs_2R[1]
    return [
        (median(observed) / median(unobserved), float(np.quantile(medians_2S[0] / medians_2S[1], 0.95))),
        (float(np.median(turns_R)), float(np.quantile(np.median(turns_R[drawn_SR], axis=1), 0.95))),
    ]


def verdict(value: float, limit: float) -> str:
    """Whether it is within its limit."""
    return "within" if value <= limit else "ABOVE"


if __name__ == "__main__":
    main()
