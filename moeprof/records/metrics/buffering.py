"""Metrics of runs with a buffered store, in addition to those of replays: load times, and how much of them is hidden."""

from collections.abc import Iterator

from moeprof.records.metrics.metric import Metric


def buffer_metrics() -> Iterator[Metric]:
    """Metrics of a variant that loads experts on demand; times are per step, medians over rounds."""
    scope = "per step over layers, median over rounds; mean over ranks"
    yield Metric("step_bytes_loaded", "bytes", "lower", "timed", "bytes that the ledger loads in a step, over layers and ranks")
    yield Metric("load_time", "ns", "lower", "timed", f"time in which the ledger loads experts, {scope}")
    yield Metric("stall_time", "ns", "lower", "timed", f"time in which a layer waits for an expert, {scope}")
    yield Metric(
        "hideable_time",
        "ns",
        "neither",
        "timed",
        f"per layer and step: min(load time, other work of the layer after its experts are known), {scope}",
    )
    yield Metric(
        "hidden_fraction", "fraction", "higher", "timed", "(load_time - stall_time) / hideable_time, median over rounds"
    )
    yield Metric(
        "load_bandwidth", "bytes/s", "higher", "timed", "step_bytes_loaded / load_time of all ranks, median over rounds"
    )
    yield Metric("expert_slots_per_layer", "slots", "neither", "exact", "expert slots of each buffered layer on each rank")
    yield Metric("energy", "mJ/token", "lower", "timed", "energy of the device in timed rounds / their tokens (NVML)")


def offloading_metrics() -> Iterator[Metric]:
    """Metrics of offloading systems in the pass `routing` or a replay, from a cold start; `category` is a precision where there is one."""
    yield Metric("unit_uses", "uses", "neither", "routed", "uses of experts that the store has or loads at a precision")
    yield Metric(
        "unit_hit_rate", "fraction", "higher", "routed", "uses of experts that are resident or on their way / unit_uses"
    )
    yield Metric("demand_bytes", "bytes", "lower", "routed", "bytes loaded because a step needs them")
    yield Metric("demand_time", "ns", "lower", "modelled", "demand_bytes of a replay / link bandwidth / steps of the phase")
    yield Metric("prefetch_bytes", "bytes", "lower", "routed", "bytes loaded ahead of their use")
    yield Metric(
        "ledger_bytes", "bytes", "lower", "routed", "bytes that the ledger moved; category is the tier that they came from"
    )
    yield Metric(
        "carbon",
        "g/1000 tokens",
        "lower",
        "modelled",
        "(26 W x bytes of weights in memory / 256 GB + 2 W with experts in a file) x 1000 / throughput x 820 g/kWh (M2Cache)",
    )
    yield Metric("skipped_uses", "uses", "lower", "routed", "uses that the load rule skips, so that the expert adds nothing")
    yield Metric("far_uses", "uses", "neither", "routed", "uses that another process computes, where the weights are")
    yield Metric(
        "prefetch_precision", "fraction", "higher", "routed", "prefetched experts that are used before they leave / prefetched"
    )
    yield Metric(
        "prefetch_recall",
        "fraction",
        "higher",
        "routed",
        "first uses after a prefetch / (those + uses that wait for a load on demand)",
    )
