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
