"""The metric registry, and the tidy table `metrics.csv` in which every number of a run stands."""

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypedDict

from moeprof.records.files import replacing

Kind = Literal["exact", "routed", "timed", "modelled", "forced"]
Better = Literal["higher", "lower", "neither"]

KEYS = ("workload", "phase", "domain", "variant", "point", "rank", "layer", "region", "category", "metric")
"""Columns that tell one number from another; empty means over all of them."""

COLUMNS = (*KEYS, "unit", "kind", "value")


@dataclass(frozen=True)
class Metric:
    """A number that moeprof reports, declared once.

    `kind` is `exact` (the same on every machine), `routed` (exact given the routing), `timed`, `modelled` or `forced`.
    """

    name: str
    unit: str
    better: Better
    kind: Kind
    formula: str


def fairseq_metrics() -> Iterator[Metric]:
    """What fairseq's Top2Gate logs per layer, under its names; the first choice is 1, the second 2."""
    for number, choice in ((1, "first"), (2, "second")):
        name = f"expert{number}"
        formula = f"experts without a {choice} choice, mean over steps (fairseq)"
        yield Metric(f"unused_{name}_count", "experts", "lower", "routed", formula)
        for end, busy in (("top", "busiest"), ("bottom", "idlest")):
            formula = f"{choice} choices of a step's {busy} 20% of experts, mean over steps (fairseq)"
            yield Metric(f"{name}_balance_{end}", "percent", "lower" if end == "top" else "higher", "routed", formula)


def replay_metrics() -> Iterator[Metric]:
    """What a replay says of an expert cache, at the point `policy=lru;slots=16` or `policy=lru;budget_bytes=262144000`."""
    yield Metric("expert_accesses", "accesses", "neither", "routed", "distinct experts of every step and layer, summed")
    yield Metric("compulsory_misses", "misses", "neither", "routed", "accesses to experts that were never used before")
    yield Metric("misses", "misses", "lower", "routed", "accesses to experts that are not in the cache")
    yield Metric("miss_rate", "fraction", "lower", "routed", "misses / expert_accesses")
    yield Metric("worst_miss_rate", "fraction", "lower", "routed", "largest miss_rate of any layer and domain")
    yield Metric("bytes_loaded", "bytes", "lower", "routed", "misses x bytes of the layer's experts, over all devices")
    yield Metric(
        "knee_slots", "slots", "neither", "routed", "slots at which misses lie deepest below the line between both ends"
    )
    yield Metric("knee_budget", "bytes", "neither", "routed", "knee_slots where budgets in bytes were swept")
    yield Metric("copy_time", "ns", "lower", "modelled", "bytes of one expert (over layers: the largest) / link bandwidth")
    yield Metric(
        "transfer_time", "ns", "lower", "modelled", "bytes_loaded of the busiest device / link bandwidth / steps of the phase"
    )
    yield Metric(
        "exposed_time",
        "ns",
        "lower",
        "modelled",
        "max(0, copies - overlap) of every layer's step, summed per device / steps of the phase; the slowest device",
    )
    yield Metric("memory_saved", "bytes", "higher", "exact", "bytes of a device's experts that have no slot (paper 5.5)")
    yield Metric(
        "memory_saved_share", "fraction", "higher", "exact", "memory_saved / all weights of a device without buffering"
    )
    yield Metric("memory_reduction", "ratio", "higher", "exact", "all weights of a device / what is left of them")


def balance_metrics() -> Iterator[Metric]:
    """What a replay says of a placement, at the point `balancer=greedy;devices=8`; of a floor, at `devices=8`."""
    for name, formula in (
        ("max_load", "largest share of a step's choices that one device serves, over all test steps (paper 6.4)"),
        ("avg_max_load", "share of the busiest device of a step, mean over test steps (paper 6.4)"),
        ("max_load_floor", "max(1/devices, share of the step's hottest expert), largest of all test steps"),
        ("avg_max_load_floor", "max(1/devices, share of the step's hottest expert), mean over test steps"),
    ):
        yield Metric(name, "fraction", "lower", "routed", f"{formula}; over layers: their mean")
        for label in ("p50", "p90", "worst"):
            yield Metric(f"{name}_{label}", "fraction", "lower", "routed", f"{label} over layers of {name}")
    yield Metric("ideal_load", "fraction", "neither", "exact", "1 / devices")
    yield Metric(
        "load_gain", "fraction", "higher", "routed", "1 - avg_max_load / that of contiguous placement, means over layers"
    )
    for end, which in (("low", "lower"), ("high", "upper")):
        yield Metric(
            f"load_gain_{end}",
            "fraction",
            "higher",
            "routed",
            f"{which} end of load_gain's 95% interval (bootstrap over steps)",
        )
    yield Metric("history_steps", "steps", "neither", "exact", "steps that placements were made from, all layers together")
    yield Metric("test_steps", "steps", "neither", "exact", "steps that placements were judged on, all layers together")
    yield Metric("device_slots", "slots", "lower", "exact", "experts of a layer on each device")
    yield Metric("moved_experts", "experts", "lower", "routed", "slots whose expert contiguous placement has on another device")
    yield Metric("moved_bytes", "bytes", "lower", "routed", "bytes of moved_experts")
    yield Metric("device_load", "fraction", "neither", "routed", "share of a test step's choices that the device serves, mean")
    yield Metric(
        "virtual_comm_tokens", "tokens", "lower", "routed", "tokens that leave their device for an expert, per step, one way"
    )
    yield Metric("virtual_comm_bytes", "bytes", "lower", "routed", "bytes of virtual_comm_tokens, there and back")
    yield Metric(
        "virtual_comm_time",
        "ns",
        "lower",
        "modelled",
        "all-to-alls of a step until the slowest device is done, mean over steps",
    )
    yield Metric(
        "virtual_wait_time", "ns", "lower", "modelled", "virtual_comm_time - a device's own, mean over devices and steps"
    )


def with_interval(metric: Metric) -> Iterator[Metric]:
    """A timed metric, and the ends of the 95% interval of its median over rounds."""
    yield metric
    for end, which in (("low", "lower"), ("high", "upper")):
        yield replace(metric, name=f"{metric.name}_{end}", formula=f"{which} end of the 95% interval of {metric.name}")


METRICS = {
    metric.name: metric
    for metric in (
        *with_interval(
            Metric("throughput", "tokens/s", "higher", "timed", "tokens of a step, padding left out / median step_latency")
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
        *with_interval(Metric("max_throughput", "tokens/s", "higher", "timed", "throughput at best_batch, variants in turns")),
        *with_interval(
            Metric(
                "speedup_max_throughput",
                "ratio",
                "higher",
                "timed",
                "max_throughput / that of the variant in category, each at its own best_batch, median over rounds",
            )
        ),
        Metric("best_batch", "sequences", "neither", "timed", "batch of the largest throughput within the memory budget"),
        Metric("max_batch", "sequences", "higher", "timed", "largest batch that was seen to fit the memory budget"),
        Metric("fits", "boolean", "higher", "timed", "1 where a batch fits the memory budget, 0 where it does not"),
        Metric("memory_budget", "bytes", "neither", "timed", "what a sweep may use, weights included"),
        Metric("step_latency", "ns", "lower", "timed", "median over rounds of a round's time / its steps"),
        Metric("slowdown_vs_dense", "ratio", "lower", "timed", "step_latency / step_latency of the dense twin"),
        Metric("step_tokens", "tokens", "neither", "exact", "mean tokens of a step, padding left out"),
        Metric("step_rows", "tokens", "neither", "exact", "mean S of a step, padding included"),
        Metric("steps", "steps", "neither", "exact", "forward passes whose routing was recorded"),
        Metric("num_parameters", "parameters", "neither", "exact", "all parameters; a tied embedding counts once"),
        Metric("expert_parameters", "parameters", "neither", "exact", "parameters of the routed experts"),
        Metric(
            "flops_per_token",
            "FLOP",
            "lower",
            "exact",
            "2 x parameters that a token's products use, top_k experts each",
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
            "expert_slots", "slots", "lower", "routed", "rows a layer's step hands to experts (static: E x ceil(C x S)), mean"
        ),
        Metric("capacity", "slots", "neither", "exact", "ceil(C x S), mean over steps"),
        Metric("dropped_fraction", "fraction", "lower", "routed", "choices over capacity / (top_k x tokens)"),
        Metric("dropped_tokens", "fraction", "lower", "routed", "tokens that lost at least one choice / tokens"),
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
        Metric("gate_entropy", "nats", "neither", "routed", "entropy of the router's softmax, mean over tokens; even is ln E"),
        Metric("entropy_gating", "nats", "neither", "routed", "gate_entropy, mean over steps, under fairseq's name"),
        Metric("memory_dynamic_peak", "bytes", "lower", "routed", "most live tensor bytes in a phase, parameters left out"),
        Metric("memory_total_peak", "bytes", "lower", "routed", "memory_static + memory_dynamic_peak"),
        Metric(
            "memory_peak",
            "bytes",
            "lower",
            "routed",
            "region: most live dynamic bytes in it; category: most live bytes of it; allocator: CUDA's own peak of dynamic bytes",
        ),
        Metric("memory_at_peak", "bytes", "lower", "routed", "bytes by category at the total peak; they add up to it"),
        Metric("memory_vs_dense", "ratio", "lower", "routed", "memory_total_peak / memory_total_peak of the dense twin"),
        Metric(
            "output_max_abs_diff",
            "units",
            "lower",
            "routed",
            "largest difference of an output from the baseline's, over the tokens compared",
        ),
        Metric(
            "output_tokens_compared",
            "tokens",
            "neither",
            "routed",
            "tokens with no drop, nor flip, in anything they see; of a layer: that lost nothing in it",
        ),
        Metric("output_tokens_lost", "tokens", "neither", "routed", "tokens that could not be compared"),
        Metric("output_tokens_differing", "tokens", "lower", "routed", "tokens compared that differ beyond the tolerance"),
        Metric("routing_flips", "tokens", "lower", "routed", "near-ties of the router that rounding decided another way"),
        Metric(
            "token_agreement", "fraction", "higher", "routed", "tokens whose next one is predicted as by the baseline / tokens"
        ),
        Metric("region_time", "ns", "lower", "timed", "a region's time per step over its layers, median over rounds"),
        Metric("region_share", "fraction", "neither", "timed", "region_time / sum of all regions' region_time, other included"),
        Metric("overhead", "ratio", "lower", "timed", "median round under an instrument / median round without, in turns"),
        Metric(
            "perplexity", "tokens", "lower", "routed", "e to the mean cross-entropy of the predicted tokens, specials left out"
        ),
        Metric(
            "bits_per_byte", "bits", "lower", "routed", "cross-entropy of the predicted tokens in bits / their bytes of UTF-8"
        ),
        Metric(
            "chrf", "points", "higher", "routed", "chrF2 of greedy translations against references, corpus level (sacrebleu)"
        ),
    )
}
"""Every metric by name."""


class Address(TypedDict, total=False):
    """Key cells that several rows share."""

    workload: str
    phase: str
    domain: str
    variant: str
    point: str
    rank: str
    layer: str
    region: str
    category: str


@dataclass(frozen=True)
class MetricRow:
    """One number with its whole address."""

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
        """As declared; `forced` where decisions were forced and the number depends on them."""
        declared = METRICS[self.metric].kind
        return "forced" if self.forced and declared == "routed" else declared

    @property
    def address(self) -> tuple[str, ...]:
        """Its key cells."""
        return tuple(str(getattr(self, key)) for key in KEYS)

    def cells(self) -> list[str]:
        """The cells of its line in `metrics.csv`; ValueError for a value that is not finite."""
        if not math.isfinite(self.value):
            raise ValueError(f"{self.metric} is {self.value}: a number that cannot be computed is left out, not recorded")
        return [*self.address, METRICS[self.metric].unit, self.kind, repr(float(self.value))]


@dataclass
class MetricTable:
    """Rows on their way to `metrics.csv`; the same address twice is an error."""

    rows: list[MetricRow] = field(default_factory=list)
    addresses: set[tuple[str, ...]] = field(default_factory=set)

    def extend(self, rows: Iterable[MetricRow]) -> None:
        """Adds rows in order."""
        for row in rows:
            address = row.address
            if address in self.addresses:
                raise ValueError(f"{row.metric} is recorded twice at {address}")
            self.addresses.add(address)
            self.rows.append(row)

    def write(self, path: Path) -> None:
        """Writes the tidy table; numbers are written so that they read back exactly."""
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(row.cells() for row in self.rows)
