"""Balancers on steps that they have not seen: imbalance (load of the busiest device over the mean device), and gain over eplb-distinct.

Each half of the steps of every domain makes a placement that is judged on the other half, and back; of a table of counts each domain
judges the placements of each other one. Loads are counted by the rule of real ranks, without splitting a choice. Ids of experts are
mixed again `--repeats` times, because ties and the order of a search depend on them. The interval is that of `moeprof replay`: blocks of
steps are drawn, the same for all layers and balancers. Without a trace, loads are drawn whose nature is known.

python benchmarks/held_out.py [TRACE ...] [--phase PHASE] [--tokens-per-step N,...] [--devices N,...] [--repeats N]
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from moeprof.analysis.placement.device_load import history_of, top_shares
from moeprof.analysis.placement.gain import gain
from moeprof.analysis.placement.trial import Halves, cluster_for, crossed, part_of
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import LoadMatrix, pooled
from moeprof.policies.balancing.registry import BALANCERS, placed
from moeprof.records.arrays import Floats, Ints
from moeprof.records.run.replay import PhaseChoice
from moeprof.studies.replay.loads import read_loads

BASE = "eplb-distinct"
NAMES = ("greedy", "anti-correlation-rescaled", "mean-square", "eplb", BASE, "mean-square-copies")
EXPERTS, TOP_K, STEPS = 256, 8, 200
DRAWN: dict[str, dict[str, float]] = {
    "steady, 4,096 tokens": {"tokens": 4096, "noise": 1e6},
    "noise of 35%, 512 tokens": {},
    "16 groups that are busy together, 512 tokens": {"groups": 16},
    "drift of loads by a factor of e^0.5, 512 tokens": {"drift": 0.5},
}


def main() -> None:
    """Prints a table for each trace, number of tokens and number of devices."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--phase", default="all")
    parser.add_argument("--tokens-per-step", default="")
    parser.add_argument("--devices", default="8")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    tokens = [int(number) for number in options.tokens_per_step.split(",") if number]
    for devices in map(int, options.devices.split(",")):
        for title, layers in drawn() if not options.traces else read(options.traces, options.phase, tokens):
            folds = [halves for matrices in layers for halves in folded(matrices)]
            if folds:
                print(f"{title}, {devices} devices, {len(folds)} layers and folds", flush=True)
                print("\n".join(told(folds, devices, options.replicas, options.repeats)), flush=True)


def read(paths: Sequence[Path], phase: PhaseChoice, tokens: Sequence[int]) -> Iterator[tuple[str, list[list[LoadMatrix]]]]:
    """The layers of every trace and number of tokens per step."""
    for path in paths:
        for number in tokens or [0]:
            inputs = read_loads(path, phase=phase, tokens_per_step=[number] if number else []).inputs
            for name, layers in inputs.layers.items():
                yield f"{path.name} {name}, {number or 'recorded'} tokens per step", [list(matrices) for matrices in layers]


def drawn() -> Iterator[tuple[str, list[list[LoadMatrix]]]]:
    """Four layers of every kind."""
    for title, options in DRAWN.items():
        yield title, [[matrix_of_counts(str(seed), "", drawn_counts(seed, **options), TOP_K)] for seed in range(4)]


def drawn_counts(seed: int, tokens: float = 512, noise: float = 8, groups: float = 0, drift: float = 0) -> Ints:
    """Choices (E, B) whose weights fall with a power of a rank."""
    generator = np.random.default_rng(seed)
    first_E = generator.permutation(np.arange(1, EXPERTS + 1) ** -0.8)
    last_E = first_E * np.exp(drift * generator.normal(size=EXPERTS))
    part_B1 = np.linspace(0, 1, STEPS)[:, None]
    weights_BE = (first_E * (1 - part_B1) + last_E * part_B1) * generator.gamma(noise, 1 / noise, (STEPS, EXPERTS))
    if groups:
        weights_BE *= generator.gamma(1, 1, (STEPS, int(groups)))[:, generator.permutation(EXPERTS) % int(groups)]
    return generator.multinomial(int(tokens) * TOP_K, weights_BE / weights_BE.sum(axis=1, keepdims=True)).T


def folded(matrices: Sequence[LoadMatrix]) -> list[Halves]:
    """Both directions of the halves of all domains with two steps; without such a domain, each pair of domains."""
    long = [matrix for matrix in matrices if matrix.num_steps > 1]
    if not long:
        return list(crossed(matrices).values())
    early, late = (
        pooled([part_of(one, *((0, one.num_steps // 2) if first else (one.num_steps // 2, one.num_steps))) for one in long])
        for first in (True, False)
    )
    return [Halves(early, late), Halves(late, early)]


def told(folds: Sequence[Halves], devices: int, replicas: int, repeats: int) -> Iterator[str]:
    """A line per balancer that can place the experts: imbalance, gain and its interval."""
    experts = folds[0].test.num_experts
    names = [name for name in NAMES if BALANCERS[name].replicates or experts % devices == 0]
    tops = {name: [judged(name, one, devices, replicas, repeats) for one in folds] for name in names}
    for name in names:
        found = gain([one.test.steps_B for one in folds], tops[BASE], tops[name])
        imbalance = devices * np.mean([top_B.mean() for top_B in tops[name]])
        yield f"  {name:26} {imbalance:7.3f} {found.value:7.1%} [{found.low:6.1%}, {found.high:6.1%}]"


def judged(name: str, halves: Halves, devices: int, replicas: int, repeats: int) -> Floats:
    """Share of the busiest device in every test step, (B,), mean over mixed ids."""
    experts, tops = halves.test.num_experts, []
    for seed in range(repeats):
        order_E = np.random.default_rng(seed).permutation(experts)
        history = history_of(mixed(halves.history, order_E))
        slots_DS = placed(name, history, cluster_for(name, experts, devices, replicas=replicas))
        tops.append(top_shares(mixed(halves.test, order_E), slots_DS))
    return np.asarray(np.mean(tops, axis=0))


def mixed(matrix: LoadMatrix, order_E: Ints) -> LoadMatrix:
    """The matrix with expert e as `order_E[e]`."""
    expert_N = order_E[matrix.expert_N]
    cells = np.lexsort((expert_N, matrix.column_N))
    return replace(matrix, expert_N=expert_N[cells], count_WN=matrix.count_WN[:, cells], dropped_WN=matrix.dropped_WN[:, cells])


if __name__ == "__main__":
    main()
