"""What the policies of offloading systems decide on a recorded trace with weights of its choices, and whether that gains anything.

HOBBIT's load rule: which part of the choices is loaded in high or low precision or skipped, and the bytes that two pools load beside LRU
in high precision alone, in the same fast memory. Its eviction weights are fitted on the prompt and the first half of the decoded tokens;
the second half, which follows in the same pools, is held out. M2Cache's premise: the overlap of consecutive decode steps. InfMoE's orders:
the prompt's experts of each layer over two slots, given how long a load takes.

python benchmarks/offloading_policies.py TRACE [--high-bits 16] [--low-bits 4] [--group 64]
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from moeprof.policies.offloading.fitting import TwoPools, fit_weights, pool_misses
from moeprof.policies.offloading.order import LoadOrder, makespan, ordered
from moeprof.policies.offloading.priority import PriorityWeights
from moeprof.policies.offloading.requests import ExpertRequests, requests_of
from moeprof.policies.offloading.rule import HIGH, LOW, SKIP, LoadRule, unimportance
from moeprof.records.arrays import Floats, Ints
from moeprof.records.traces.formats import read_trace_file
from moeprof.records.traces.routing_trace import RoutingTrace

LRU, LFU = PriorityWeights(lru=1), PriorityWeights(lfu=1)
MEMORIES, LOW_PARTS, LOAD_TIMES = (0.0625, 0.125, 0.25, 0.5), (0.1, 0.25, 0.5), (0.5, 1.0, 2.0)
"""Fast memory as a part of all experts; the part of it that the low pool gets; load times in mean computations of an expert."""


def main() -> None:
    """Prints the figures of one trace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--high-bits", type=float, default=16)
    parser.add_argument("--low-bits", type=float, default=4)
    parser.add_argument("--group", type=int, default=64, help="weights that share a scale of 16 bits in low precision")
    options = parser.parse_args()
    traces = read_trace_file(options.trace).traces
    low_cost = (options.low_bits + 16 / options.group) / options.high_bits
    print(f"{options.trace.name}: an expert in low precision has {low_cost:.4f} of the bytes in high precision")
    rule = LoadRule()
    for trace in traces:
        shares(trace, rule)
    requests, high_only = (all_requests(traces, one) for one in (rule, LoadRule(1, 1)))
    for memory in MEMORIES:
        bytes_of(requests, high_only, traces, memory, low_cost)
    if decoded := [trace for trace in traces if trace.header.phase == "decode"]:
        overlap(all_requests(decoded, rule))
    for load_time in LOAD_TIMES:
        orders(traces[0], load_time)


def rank_unimportance(trace: RoutingTrace) -> Floats:
    """The unimportance of each row; rows of a token follow each other."""
    return unimportance(trace.column("weight").reshape(-1, trace.header.top_k)).ravel()


def shares(trace: RoutingTrace, rule: LoadRule) -> None:
    """What the rule says of all choices of a phase, resident or not."""
    decided_R = rule.decide(rank_unimportance(trace))
    high, low, skip = (np.mean(decided_R == kind) for kind in (HIGH, LOW, SKIP))
    print(
        f"{trace.header.phase}, top-{trace.header.top_k}, T1 {rule.t1}, T2 {rule.t2}: "
        f"{high:.1%} high, {low:.1%} low, {skip:.1%} skip of {len(decided_R):,} choices"
    )


def all_requests(traces: list[RoutingTrace], rule: LoadRule) -> ExpertRequests:
    """The requests of all phases in turn; a sequence's prompt is one step, with the number of its last token."""
    parts = []
    for trace in traces:
        code_R, names = trace.codes("layer")
        layer_R = np.array([trace.header.layers.index(name) for name in names], np.int64)[code_R]
        token_R, sequence_R = trace.column("step").astype(np.int64), trace.column("sequence").astype(np.int64)
        if trace.header.phase == "prefill":
            token_R = np.array([token_R[sequence_R == one].max() for one in range(sequence_R.max() + 1)])[sequence_R]
        parts.append(
            requests_of(sequence_R, token_R, layer_R, trace.column("expert").astype(np.int64), rank_unimportance(trace), rule)
        )
    return ExpertRequests(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def bytes_of(
    requests: ExpertRequests, high_only: ExpertRequests, traces: list[RoutingTrace], memory: float, low_cost: float
) -> None:
    """One size of fast memory: bytes in expert loads of high precision, all of them and those of the held-out half."""
    header = traces[0].header
    slots = int(memory * len(header.layers) * header.num_experts)
    half = middle(requests)
    plain = TwoPools(slots, 0, len(header.layers), header.num_experts, low_cost)
    base, base_early = (pool_misses(one, LRU, plain).high for one in (high_only, high_only.part(0, middle(high_only))))
    print(f"\nfast memory for {memory:.2%} of the experts ({slots} in high precision)")
    print(f"  LRU, high precision alone: {base} loads, {base - base_early} held out")
    for part in LOW_PARTS:
        low = int(part * slots)
        pools = TwoPools(slots - low, int(low / low_cost), plain.num_layers, plain.num_experts, low_cost)
        start = time.process_time()
        fitted = fit_weights(requests.part(0, half), pools)
        taken = time.process_time() - start
        early, late = {}, {}
        for name, weights in (("lru", LRU), ("lfu", LFU), ("fitted", fitted.weights)):
            early[name] = pool_misses(requests.part(0, half), weights, pools).penalty(low_cost)
            late[name] = pool_misses(requests, weights, pools).penalty(low_cost) - early[name]
        found = pool_misses(requests, LRU, pools)
        print(
            f"  {part:.0%} of it holds {pools.low_slots} in low precision; rule with LRU: {found.high} loads in high precision, "
            f"{found.low} in low, {found.skipped} skipped: {found.penalty(low_cost) / base:.3f} of the bytes"
        )
        for what, cost in (("fitted part", early), ("held out", late)):
            against = ", ".join(f"{cost['fitted'] / cost[name] - 1:+.1%} of {name} {cost[name]:.0f}" for name in ("lru", "lfu"))
            print(f"    {what}: fitted weights cost {cost['fitted']:.0f}: {against}")
        print(f"    weights: {fitted.weights}, fitted in {taken:.1f} s of processor time")


def middle(requests: ExpertRequests) -> int:
    """Where the second half of the tokens begins."""
    tokens = requests.tokens_N
    return int(np.searchsorted(tokens, (tokens.min() + tokens.max() + 1) // 2))


def overlap(requests: ExpertRequests) -> None:
    """How many experts of a decoded token's layer the token before used too: the hit rate of ATU."""
    starts = requests.starts()
    before: dict[int, set[int]] = {}
    same = total = 0
    for first, last in pairwise(starts):
        layer, used = int(requests.layers_N[first]), set(requests.experts_N[first:last].tolist())
        if layer in before:
            same, total = same + len(used & before[layer]), total + len(used)
        before[layer] = used
    met = "premise met" if same / total >= 0.5 else "premise not met"
    print(f"\noverlap of consecutive decode steps: {same / total:.1%} ({met}: M2Cache needs at least 50%)")


def orders(trace: RoutingTrace, load_time: float) -> None:
    """The prompt's experts of each layer, most of which are active, over two slots: times by order, in mean computations of an expert."""
    orders_tried: tuple[LoadOrder, ...] = ("index", "johnson")
    ratios = []
    for layer in trace.names("layer"):
        rows_E: Ints = np.bincount(trace.select(layer=layer).column("expert"))
        rows_J = rows_E[rows_E > 0].astype(float)
        load_J = np.full(len(rows_J), load_time * rows_J.mean())
        index, johnson = (makespan(load_J, rows_J, ordered(load_J, rows_J, 2, one), 2) for one in orders_tried)
        ratios.append(johnson / index)
    print(
        f"prompt, two slots, a load takes {load_time:g} mean computations: Johnson's order takes {np.mean(ratios):.3f} of index order "
        f"(mean of {len(ratios)} layers, {min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
