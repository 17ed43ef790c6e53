"""The metrics that runs of a buffered store declare beside those of replays: what loading took, and what hid it."""

from collections.abc import Iterator

from moeprof.records.metrics.metric import Metric


def buffer_metrics() -> Iterator[Metric]:
    """Of a variant whose experts are loaded when they are used; all per step, medians over rounds."""
    where = "per step over layers, median over rounds; mean over ranks"
    yield Metric("step_bytes_loaded", "bytes", "lower", "timed", "bytes that the ledger moves in a step, over layers and ranks")
    yield Metric("load_time", "ns", "lower", "timed", f"time in which the ledger moves experts, {where}")
    yield Metric("stall_time", "ns", "lower", "timed", f"time in which a layer stands still for an expert, {where}")
    yield Metric(
        "hideable_time",
        "ns",
        "neither",
        "timed",
        f"of each layer's step: its loads, or its other work from the moment its experts are known if that is less, {where}",
    )
    yield Metric(
        "hidden_fraction", "fraction", "higher", "timed", "(load_time - stall_time) / hideable_time, median over rounds"
    )
    yield Metric(
        "load_bandwidth", "bytes/s", "higher", "timed", "step_bytes_loaded / load_time of all ranks, median over rounds"
    )
    yield Metric("expert_slots_per_layer", "slots", "neither", "exact", "expert slots of each buffered layer on each rank")
    yield Metric("energy", "mJ/token", "lower", "timed", "energy that the device used in timed rounds / their tokens (NVML)")
