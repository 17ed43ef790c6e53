"""The metric registry, and the rows of the tidy table `metrics.csv`, which contains every number of a run."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from moeprof.records.metrics.buffering import buffer_metrics, offloading_metrics
from moeprof.records.metrics.metric import Kind, Metric
from moeprof.records.metrics.replay import (
    balance_metrics,
    rebalance_metrics,
    repeated_move_metrics,
    replay_metrics,
    replica_metrics,
)
from moeprof.records.metrics.row import RowKey
from moeprof.records.metrics.trace import trace_metrics
from moeprof.records.system.files import replacing

KEYS = RowKey._fields
"""The key columns in order."""

COLUMNS = (*KEYS, "unit", "kind", "value")


def fairseq_metrics() -> Iterator[Metric]:
    """Metrics that fairseq's Top2Gate logs per layer, under fairseq's names; expert1 is the first choice, expert2 the second."""
    for number, choice in ((1, "first"), (2, "second")):
        name = f"expert{number}"
        formula = f"experts without a {choice} choice, mean over steps (fairseq)"
        yield Metric(f"unused_{name}_count", "experts", "lower", "routed", formula)
        for end, busy in (("top", "busiest"), ("bottom", "idlest")):
            formula = f"{choice} choices of a step's {busy} 20% of experts, mean over steps (fairseq)"
            yield Metric(f"{name}_balance_{end}", "percent", "lower" if end == "top" else "higher", "routed", formula)


def latency_metrics() -> Iterator[Metric]:
    """Latencies of decoding, as a user of the model sees them."""
    first = "time of the prompt, or of the source and the first step: until the first generated token; median over rounds"
    yield Metric("time_to_first_token", "ns", "lower", "timed", first)
    yield Metric("time_per_output_token", "ns", "lower", "timed", "mean step after the first token, median over rounds")
    for percentile in (50, 95, 99):
        formula = f"{percentile}th percentile of the decode steps of all rounds, interpolated"
        yield Metric(f"decode_step_p{percentile}", "ns", "lower", "timed", formula)


def with_interval(metric: Metric) -> Iterator[Metric]:
    """A timed metric, and the ends of the 95% interval of its median over rounds."""
    yield metric
    for end, which in (("low", "lower"), ("high", "upper")):
        yield replace(metric, name=f"{metric.name}_{end}", formula=f"{which} end of the 95% interval of {metric.name}")


def by_name(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Metrics by their names; a name has one definition."""
    found: dict[str, Metric] = {}
    for metric in metrics:
        if found.setdefault(metric.name, metric) is not metric:
            raise ValueError(f"{metric.name} is defined twice: {found[metric.name].formula!r} and {metric.formula!r}")
    return found


METRICS = by_name(
    (
        *with_interval(
            Metric("throughput", "tokens/s", "higher", "timed", "tokens of a step without padding / median step_latency")
        ),
        *with_interval(
            Metric(
                "speedup_equal_batch",
                "ratio",
                "higher",
                "timed",
                "throughput / that of the variant in category, same batch, median over rounds",
            )
        ),
        *with_interval(
            Metric("max_throughput", "tokens/s", "higher", "timed", "throughput at best_batch, rounds of variants interleaved")
        ),
        *with_interval(
            Metric(
                "speedup_max_throughput",
                "ratio",
                "higher",
                "timed",
                "max_throughput / that of the variant in category, each at its own best_batch, median over rounds",
            )
        ),
        Metric("best_batch", "sequences", "neither", "timed", "batch with the largest throughput within the memory budget"),
        Metric("max_batch", "sequences", "higher", "timed", "largest tried batch that fits the memory budget"),
        Metric("fits", "boolean", "higher", "timed", "1 if the batch fits the memory budget, else 0"),
        Metric("memory_budget", "bytes", "neither", "timed", "memory that a sweep may use, including weights"),
        Metric("step_latency", "ns", "lower", "timed", "median over rounds of a round's time / its steps"),
        *latency_metrics(),
        *with_interval(
            Metric("slowdown_vs_dense", "ratio", "lower", "timed", "step_latency / that of the dense twin, median over rounds")
        ),
        Metric("step_tokens", "tokens", "neither", "exact", "mean tokens of a step, without padding"),
        Metric("step_rows", "tokens", "neither", "exact", "mean S of a step, including padding"),
        Metric("steps", "steps", "neither", "exact", "forward passes whose routing was recorded"),
        Metric("num_parameters", "parameters", "neither", "exact", "all parameters; a tied embedding counts once"),
        Metric("expert_parameters", "parameters", "neither", "exact", "parameters of the routed experts"),
        Metric(
            "flops_per_token",
            "FLOP",
            "lower",
            "exact",
            "2 x parameters in the matrix products of a token, with top_k experts per layer",
        ),
        Metric("memory_static", "bytes", "lower", "exact", "bytes of the parameters"),
        Metric(
            "waste_factor",
            "ratio",
            "lower",
            "routed",
            "expert_slots / (top_k x tokens), summed over steps (paper: E C / k)",
        ),
        Metric(
            "expert_slots",
            "slots",
            "lower",
            "routed",
            "rows that a layer passes to experts per step (static: E x ceil(C x S)), mean",
        ),
        Metric("capacity", "slots", "neither", "exact", "ceil(C x S), mean over steps"),
        Metric("dropped_fraction", "fraction", "lower", "routed", "choices over capacity / (top_k x tokens)"),
        Metric("dropped_tokens", "fraction", "lower", "routed", "tokens that lost at least one choice / tokens"),
        Metric(
            "expert_calls", "calls", "neither", "routed", "calls of a layer's experts that the backend in category computed"
        ),
        Metric(
            "choices", "fraction", "neither", "routed", "choices of the kind in category / (top_k x rows), padding included"
        ),
        Metric("overflow_expert1", "percent", "lower", "routed", "100 x dropped first choices / tokens (fairseq)"),
        Metric("overflow_expert2", "percent", "lower", "routed", "100 x dropped second choices / tokens (fairseq)"),
        Metric("active_experts", "experts", "neither", "routed", "experts with at least one choice, mean over steps"),
        Metric("active_bound", "experts", "neither", "exact", "min(E, top_k x tokens of a step), mean over steps"),
        Metric("inactive_fraction", "fraction", "neither", "routed", "1 - active_experts / E"),
        Metric("dead_experts", "experts", "lower", "routed", "experts that no step uses"),
        Metric("load_max_over_mean", "ratio", "lower", "routed", "choices of the hottest expert / mean choices per expert"),
        Metric("load_cv", "ratio", "lower", "routed", "standard deviation / mean of the choices per expert"),
        Metric("hottest_share", "fraction", "lower", "routed", "largest share of one step's choices that one expert takes"),
        Metric(
            "active_jaccard",
            "fraction",
            "neither",
            "routed",
            "experts active in consecutive steps / in either, mean over steps",
        ),
        Metric(
            "active_overlap", "fraction", "neither", "routed", "experts active in a step and the one before / in the step, mean"
        ),
        Metric(
            "active_overlap_by_chance",
            "fraction",
            "neither",
            "routed",
            "experts active in the step before / E, mean over steps",
        ),
        Metric(
            "reuse_distance", "steps", "neither", "routed", "steps since an expert was last active, lower median of its returns"
        ),
        Metric("hot_jaccard", "fraction", "neither", "routed", "experts in the hottest quarter of both domains / of either"),
        Metric("load_divergence", "bits", "neither", "routed", "Jensen-Shannon divergence of two domains' total loads"),
        *fairseq_metrics(),
        *replay_metrics(),
        *balance_metrics(),
        *rebalance_metrics(),
        *replica_metrics(),
        *repeated_move_metrics(),
        *buffer_metrics(),
        *offloading_metrics(),
        *trace_metrics(),
        Metric("gate_entropy", "nats", "neither", "routed", "entropy of the router's softmax, mean over tokens; even is ln E"),
        Metric("entropy_gating", "nats", "neither", "routed", "gate_entropy, mean over steps, under fairseq's name"),
        Metric("memory_dynamic_peak", "bytes", "lower", "routed", "largest live tensor bytes in a phase, without parameters"),
        Metric("memory_total_peak", "bytes", "lower", "routed", "memory_static + memory_dynamic_peak"),
        Metric(
            "memory_peak",
            "bytes",
            "lower",
            "routed",
            "region: largest live dynamic bytes in it; category: largest live bytes of it; allocator: CUDA's own peak of dynamic bytes",
        ),
        Metric("memory_at_peak", "bytes", "lower", "routed", "bytes by category at the total peak; they add up to it"),
        Metric("memory_vs_dense", "ratio", "lower", "routed", "memory_total_peak / memory_total_peak of the dense twin"),
        Metric(
            "output_max_abs_diff",
            "units",
            "lower",
            "routed",
            "largest difference of an output from the baseline's, over compared tokens",
        ),
        Metric(
            "output_tokens_compared",
            "tokens",
            "neither",
            "routed",
            "tokens that depend on no drop and no flip; of a layer: tokens without a drop in it",
        ),
        Metric("output_tokens_lost", "tokens", "neither", "routed", "tokens excluded from the comparison"),
        Metric(
            "output_tokens_differing", "tokens", "lower", "routed", "compared tokens that differ by more than the tolerance"
        ),
        Metric(
            "routing_flips", "tokens", "lower", "routed", "tokens whose choice of experts flipped at a near-tie of the router"
        ),
        Metric(
            "token_agreement",
            "fraction",
            "higher",
            "routed",
            "tokens with the same predicted next token as the baseline / tokens; an output that is not finite predicts none",
        ),
        Metric("region_time", "ns", "lower", "timed", "a region's time per step over its layers, median over rounds"),
        Metric(
            "region_share", "fraction", "neither", "timed", "region_time / sum of region_time over all regions, including other"
        ),
        Metric("collectives", "collectives", "lower", "exact", "collectives of a step, over layers"),
        Metric(
            "comm_bytes",
            "bytes",
            "lower",
            "routed",
            "bytes that all ranks send per step, including rows that stay on their rank; category crossing: to other ranks only",
        ),
        Metric(
            "comm_time",
            "ns",
            "lower",
            "timed",
            "transfer: time of each collective on the rank that took least, per step over layers, median over rounds",
        ),
        Metric(
            "comm_wait_time",
            "ns",
            "lower",
            "timed",
            "a rank's own time in collectives - comm_time, per step over layers, median over rounds; mean over ranks",
        ),
        Metric(
            "comm_exposed_time",
            "ns",
            "lower",
            "timed",
            "time in which a rank is blocked by collectives, per step over layers, median over rounds; mean over ranks",
        ),
        Metric("comm_share", "fraction", "lower", "timed", "comm_exposed_time / time of a step in the same rounds, median"),
        Metric(
            "floor_time",
            "ns",
            "neither",
            "timed",
            "time of the busiest rank's bytes to or from others as one message on the measured link, latency included; summed over "
            "collectives, per step over layers",
        ),
        Metric("time_over_floor", "ratio", "lower", "timed", "comm_time / floor_time"),
        Metric("link_latency", "ns", "lower", "timed", "shortest time of an 8-byte message between two ranks, one way"),
        Metric(
            "link_bandwidth", "bytes/s", "higher", "timed", "size of a message / its shortest time between two ranks, one way"
        ),
        Metric(
            "rank_tokens",
            "tokens",
            "neither",
            "routed",
            "choices that reach a rank's experts per layer and step, without dropped ones, mean over steps; mean over layers",
        ),
        Metric(
            "rank_load_max_over_mean",
            "ratio",
            "lower",
            "routed",
            "choices that reach the busiest rank of a step / mean over ranks, mean over steps, then over layers",
        ),
        Metric(
            "rank_memory_max_over_mean", "ratio", "lower", "routed", "memory_total_peak of the worst rank / mean over ranks"
        ),
        Metric(
            "rank_wait_max_over_mean",
            "ratio",
            "lower",
            "timed",
            "comm_wait_time of the rank that waits most / mean over ranks, per layer, then mean over layers",
        ),
        Metric(
            "overhead",
            "ratio",
            "lower",
            "timed",
            "median round with an instrument / median round without it, rounds interleaved",
        ),
        Metric(
            "perplexity", "tokens", "lower", "routed", "exp(mean cross-entropy of the predicted tokens), without special tokens"
        ),
        Metric("bits_per_byte", "bits", "lower", "routed", "cross-entropy of the predicted tokens in bits / their UTF-8 bytes"),
        Metric(
            "chrf", "points", "higher", "routed", "chrF2 of greedy translations against references, corpus level (sacrebleu)"
        ),
    )
)
"""Every metric by name."""


@dataclass(frozen=True)
class MetricRow:
    """A number to record, with its address."""

    metric: str
    value: float
    workload: str = ""
    phase: str = ""
    domain: str = ""
    variant: str = ""
    point: str = ""
    rank: str = ""
    layer: str = ""
    region: str = ""
    category: str = ""
    forced: bool = False

    @property
    def kind(self) -> Kind:
        """The declared kind, or `forced` for a routed number of a run whose routing was forced."""
        declared = METRICS[self.metric].kind
        return "forced" if self.forced and declared == "routed" else declared

    @property
    def address(self) -> RowKey:
        """The key cells of the row."""
        return RowKey(*(str(getattr(self, key)) for key in KEYS))

    def cells(self) -> list[str]:
        """The cells of its line in `metrics.csv`; ValueError if the value is not finite."""
        if not math.isfinite(self.value):
            raise ValueError(f"{self.metric} is {self.value}: a number that cannot be computed must be omitted")
        return [*self.address, METRICS[self.metric].unit, self.kind, repr(float(self.value))]


Samples = tuple[MetricRow, Sequence[float]]
"""A row beside the values that it summarizes, one per round; no values if the row has none."""


@dataclass
class MetricTable:
    """Rows to be written to `metrics.csv`, with distinct addresses."""

    rows: list[MetricRow] = field(default_factory=list)
    addresses: set[RowKey] = field(default_factory=set)

    def extend(self, rows: Iterable[MetricRow]) -> None:
        """Adds rows in order; ValueError if two have the same address."""
        for row in rows:
            address = row.address
            if address in self.addresses:
                raise ValueError(f"{row.metric} is recorded twice at {address}")
            self.addresses.add(address)
            self.rows.append(row)

    def write(self, path: Path) -> None:
        """Writes the table; values are written with all digits."""
        write_cells(path, (row.cells() for row in self.rows))


def write_cells(path: Path, lines: Iterable[Sequence[str]]) -> None:
    """Replaces `metrics.csv` by lines of cells in the order of COLUMNS."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(lines)
