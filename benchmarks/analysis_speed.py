"""Seconds and memory of the whole analysis of one long routing trace (limits for 10 million routings: 20 s, 4 GB).

python benchmarks/analysis_speed.py [--routings N] [--tokens-per-step N] [--domains N]
"""

import argparse
import resource
import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from moeprof.analysis.routing.correlation import clustered, correlation
from moeprof.analysis.routing.drift import drift_rows
from moeprof.analysis.routing.fairseq import fairseq_rows
from moeprof.analysis.routing.load_matrix import layer_matrices, pooled
from moeprof.analysis.routing.locality import locality_rows, reuse_histogram
from moeprof.analysis.routing.metrics import routing_rows
from moeprof.records.traces.columns import with_columns
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader

NUM_LAYERS, NUM_EXPERTS, TOP_K = 12, 128, 2


def main() -> None:
    """Prints one line per analysis, then the sum and the peak of the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routings", type=int, default=10_000_000)
    parser.add_argument("--tokens-per-step", type=int, default=48)
    parser.add_argument("--domains", type=int, default=3)
    options = parser.parse_args()
    trace = synthetic(options.routings, options.tokens_per_step, options.domains)
    print(f"{len(trace):,} routings, {NUM_LAYERS} layers, {NUM_EXPERTS} experts, top-{TOP_K}; {peak_gb():.2f} GB before")
    total = 0.0
    for analyse in (routing_rows, locality_rows, drift_rows, fairseq_rows, pictures):
        start = time.perf_counter()
        analyse(trace)
        seconds = time.perf_counter() - start
        total += seconds
        print(f"{analyse.__name__:16}{seconds:8.2f} s   peak {peak_gb():.2f} GB")
    print(f"{'all':16}{total:8.2f} s   peak {peak_gb():.2f} GB   (target 20 s, 4 GB)")


def pictures(trace: RoutingTrace) -> None:
    """What a report draws of every layer: correlation, its order, and the histogram of reuse distances."""
    for matrices in layer_matrices(trace):
        matrix = pooled(matrices)
        clustered(correlation(matrix))
        reuse_histogram(matrix)


def synthetic(routings: int, tokens_per_step: int, num_domains: int, num_experts: int = NUM_EXPERTS) -> RoutingTrace:
    """Skewed choices with a tenth of them dropped; every sequence of a step belongs to one domain."""
    generator = np.random.default_rng(0)
    num_steps = routings // (NUM_LAYERS * TOP_K * tokens_per_step)
    shape = (num_steps, NUM_LAYERS, tokens_per_step, TOP_K)
    step, layer, token, slot = np.indices(shape, np.int32, sparse=True)
    first = np.minimum(generator.zipf(1.3, shape[:3]) - 1, num_experts - 1) * 37 + layer[..., 0]
    expert = np.stack([first, first + generator.integers(1, num_experts, shape[:3])], axis=-1) % num_experts
    columns = {
        "step": flat(step, shape),
        "sequence": flat(token, shape),
        "position": flat(step, shape),
        "token_id": flat(token, shape),
        "layer": names(flat(layer, shape), [str(2 * index + 1) for index in range(NUM_LAYERS)]),
        "slot": flat(slot, shape),
        "expert": expert.ravel().astype(np.int32),
        "weight": np.full(expert.size, 0.5, np.float32),
        "domain": names(flat(token % num_domains, shape), [f"domain{index}" for index in range(num_domains)]),
        "dropped": generator.random(expert.size, np.float32) < 0.1,
    }
    layers = [str(2 * index + 1) for index in range(NUM_LAYERS)]
    header = TraceHeader(workload="mt", phase="decode", variant="static", num_experts=num_experts, top_k=TOP_K, layers=layers)
    return RoutingTrace(header, with_columns(pa.table(columns), COLUMNS))


def flat(values: npt.NDArray[np.int32], shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """`values` broadcast to every row of the trace."""
    return np.broadcast_to(values, shape).ravel()


def names(codes: npt.NDArray[np.int32], known: list[str]) -> pa.DictionaryArray:
    """A column of names."""
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(known))


def peak_gb() -> float:
    """The most memory that this process ever held, in 1e9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
