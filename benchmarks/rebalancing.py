"""Seconds of placing the experts of a long trace again and again, and what each strategy gains and moves if loads drift.

Asked of one core: 58 layers x 256 experts, 500 steps of 128 tokens (top-8), every 10 steps from the last 20, at most 10 s of processor
time after the loops are compiled, intervals included. Loads drift as a random walk. Exit status 1 if it takes longer.

python benchmarks/rebalancing.py [--layers N] [--steps N] [--every N] [--devices N] [--balancers NAME,...]
"""

import argparse
import sys
import time

import numpy as np

from moeprof.analysis.placement.rebalancing import Timeline
from moeprof.analysis.placement.rebalancing_rows import rebalanced_values
from moeprof.analysis.placement.trial import cluster_for
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.policies.balancing.registry import find_balancer
from moeprof.records.run.replay import BalanceRequest, TraceSource

EXPERTS, TOP_K, TOKENS = 256, 8, 128
ASKED_S = 10.0
BALANCERS = "contiguous,round-robin,greedy,anti-correlation,anti-correlation-rescaled,eplb,eplb-distinct"
"""Those that do not search: mean-square and mean-square-copies take about 2 ms for a layer of this size."""


def main() -> int:
    """Prints a line per strategy; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("layers", 58), ("steps", 500), ("every", 10), ("devices", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--balancers", default=BALANCERS)
    options = parser.parse_args()
    names = [find_balancer(name).name for name in options.balancers.split(",")]
    balance = request(options.layers, names, options.devices, options.every)
    clusters = {name: cluster_for(name, EXPERTS, options.devices, replicas=2) for name in names}
    generator = np.random.default_rng(0)
    layers = [[drifting(str(layer), options.steps, generator)] for layer in range(options.layers)]
    list(rebalanced_values(balance, clusters, Timeline.of(layers[:1], balance.window)))  # compiles
    start = time.process_time()
    values = list(rebalanced_values(balance, clusters, Timeline.of(layers, balance.window)))
    taken = time.process_time() - start
    shown: dict[str, dict[str, float]] = {}
    for metric, value, address in values:
        shown.setdefault(address.get("point", ""), {})[metric] = value
    for point, found in shown.items():
        if point:
            load, moved = found["rebalanced_load"], found.get("rebalance_moved_experts", 0.0)
            print(f"{point:72} avg max load {load:.4f}  moved each time {moved:9,.0f}")
    print(
        f"{options.layers} layers x {EXPERTS} experts, {options.steps} steps: {taken:.1f} s of processor time (asked: {ASKED_S:.0f})"
    )
    return 1 if taken > ASKED_S else 0


def request(layers: int, names: list[str], devices: int, every: int) -> BalanceRequest:
    """The settings of the replay; an expert has 44 MB."""
    source = TraceSource(
        name="drift",
        path="",
        workload="lm",
        num_experts=EXPERTS,
        top_k=TOP_K,
        layers=[str(layer) for layer in range(layers)],
        decisions={},
        expert_bytes={str(layer): 44 * 10**6 for layer in range(layers)},
    )
    return BalanceRequest(
        trace=source,
        balancers=names,
        devices=[devices],
        every=[every],
        window=2 * every,
        phase="all",
        bandwidth=10**11,
        node_bandwidth=10**11,
    )


def drifting(layer: str, num_steps: int, generator: np.random.Generator) -> LoadMatrix:
    """The loads of a layer whose shares drift from step to step."""
    logits_BE = np.log(generator.gamma(0.5, 1, EXPERTS)) + generator.normal(0, 0.05, (num_steps, EXPERTS)).cumsum(axis=0)
    shares_BE = np.exp(logits_BE - logits_BE.max(axis=1, keepdims=True))
    counts_BE = generator.multinomial(TOKENS * TOP_K, shares_BE / shares_BE.sum(axis=1, keepdims=True))
    return matrix_of_counts(layer, "", counts_BE.T, TOP_K)


if __name__ == "__main__":
    sys.exit(main())
