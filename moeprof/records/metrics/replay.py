"""Metrics of replays of a trace: of caches, and of placements."""

from collections.abc import Iterator

from moeprof.records.metrics.metric import Better, Kind, Metric


def replay_metrics() -> Iterator[Metric]:
    """Metrics of an expert cache, at the point `policy=lru;slots=16` or `policy=lru;budget_bytes=262144000`."""
    yield Metric("expert_accesses", "accesses", "neither", "routed", "distinct experts of every step and layer, summed")
    yield Metric("compulsory_misses", "misses", "neither", "routed", "accesses to experts that were never used before")
    yield Metric("misses", "misses", "lower", "routed", "accesses to experts that are not in the cache")
    yield Metric("miss_rate", "fraction", "lower", "routed", "misses / expert_accesses")
    yield Metric("worst_miss_rate", "fraction", "lower", "routed", "largest miss_rate of any layer and domain")
    yield Metric("bytes_loaded", "bytes", "lower", "routed", "misses x bytes of the layer's experts, over all devices")
    yield Metric(
        "knee_slots", "slots", "neither", "routed", "slots at which the miss curve is deepest below the line between its ends"
    )
    yield Metric("knee_budget", "bytes", "neither", "routed", "knee_slots for a sweep of budgets in bytes")
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
    yield Metric("memory_reduction", "ratio", "higher", "exact", "all weights of a device / weights that remain")


def rebalance_metrics() -> Iterator[Metric]:
    """Metrics of placements that are made again along the trace, at the point `balancer=greedy;devices=8;schedule=full;every=10`."""
    yield Metric("rebalance_steps", "steps", "neither", "exact", "steps after the first window, on which placements are judged")
    yield Metric(
        "compared_repeats",
        "strategies",
        "neither",
        "exact",
        "strategies that place again; the intervals of repeat_gain hold for all at once",
    )
    yield Metric(
        "rebalanced_load",
        "fraction",
        "lower",
        "routed",
        "avg_max_load over rebalance_steps, each under the placement of its time",
    )
    yield Metric(
        "rebalanced_imbalance",
        "ratio",
        "lower",
        "routed",
        "load of a step's busiest device / mean of all devices, mean over steps and layers",
    )
    yield from between("rebalance_gain", "fraction", "routed", "1 - rebalanced_load / that of contiguous placement")
    yield from between(
        "repeat_gain", "fraction", "routed", "1 - rebalanced_load / that of the best placement made once, in category"
    )
    yield from between(
        "repeat_net_gain",
        "fraction",
        "modelled",
        "repeat_gain - time of moving experts per step / time of a step's experts under category",
    )
    yield from between(
        "break_even_time",
        "ns",
        "modelled",
        "time of a step's experts under contiguous placement above which repeat_net_gain is positive; absent without a measurable gain",
    )


def repeated_move_metrics() -> Iterator[Metric]:
    """Metrics of the moves of such placements, at the same points."""
    yield Metric("rebalances", "placements", "neither", "exact", "placements after the first one")
    yield Metric(
        "rebalance_moved_experts",
        "experts",
        "lower",
        "routed",
        "experts that devices fetch for one of rebalances, all layers, mean",
    )
    yield Metric("rebalance_moved_bytes", "bytes", "lower", "routed", "bytes of rebalance_moved_experts")
    yield Metric(
        "rebalance_step_bytes", "bytes", "lower", "routed", "bytes that devices fetch in all rebalances / rebalance_steps"
    )
    yield Metric(
        "rebalance_time",
        "ns",
        "lower",
        "modelled",
        "time until the slowest device has moved its experts at the link bandwidth, mean of rebalances",
    )
    yield Metric(
        "first_moved_experts", "experts", "lower", "routed", "experts that devices fetch for the first placement, all layers"
    )
    yield Metric("first_moved_bytes", "bytes", "lower", "routed", "bytes of first_moved_experts")
    yield Metric("first_move_time", "ns", "lower", "modelled", "rebalance_time of the first placement")
    yield Metric(
        "payback_steps",
        "steps",
        "lower",
        "modelled",
        "first_move_time / (time of a step's experts under contiguous placement x rebalance_gain); absent without a measurable gain",
    )


def replica_metrics() -> Iterator[Metric]:
    """Metrics of numbers of extra slots for copies, at `devices=8;replicas=2`; the balancer is in `category`."""
    yield Metric("replicas_load", "fraction", "lower", "routed", "avg_max_load of the best balancer with so many extra slots")
    yield Metric("replicas_bytes", "bytes", "lower", "exact", "bytes of the extra slots of all devices and layers")
    yield from between(
        "replicas_gain", "fraction", "routed", "1 - replicas_load / that of the next smaller number of extra slots"
    )


def between(name: str, unit: str, kind: Kind, formula: str) -> Iterator[Metric]:
    """A number and the ends of its 95% interval; more is better, except for times."""
    better: Better = "lower" if unit == "ns" else "higher"
    yield Metric(name, unit, better, kind, formula)
    for end, which in (("low", "lower"), ("high", "upper")):
        yield Metric(f"{name}_{end}", unit, better, kind, f"{which} end of {name}'s 95% interval (bootstrap over steps)")


def balance_metrics() -> Iterator[Metric]:
    """Metrics of a placement, at the point `balancer=greedy;devices=8`; floors are at `devices=8`."""
    for name, formula in (
        ("max_load", "largest share of a step's choices that one device or rank serves, over all test steps (paper 6.4)"),
        ("avg_max_load", "share of the busiest device or rank of a step, mean over test steps (paper 6.4)"),
        ("max_load_floor", "max(1/devices, share of the step's hottest expert), largest of all test steps"),
        ("avg_max_load_floor", "max(1/devices, share of the step's hottest expert), mean over test steps"),
    ):
        yield Metric(name, "fraction", "lower", "routed", f"{formula}; over layers: their mean")
        for label in ("p50", "p90", "worst"):
            yield Metric(f"{name}_{label}", "fraction", "lower", "routed", f"{label} over layers of {name}")
    yield Metric("ideal_load", "fraction", "neither", "exact", "1 / devices")
    yield from between("load_gain", "fraction", "routed", "1 - avg_max_load / that of contiguous placement, means over layers")
    yield Metric(
        "compared_gains",
        "balancers",
        "neither",
        "exact",
        "balancers that are compared; the intervals of load_gain hold for all at once",
    )
    yield Metric("history_steps", "steps", "neither", "exact", "steps that placements are based on, over all layers")
    yield Metric("test_steps", "steps", "neither", "exact", "steps that placements are tested on, over all layers")
    yield Metric("test_step_tokens", "tokens", "neither", "exact", "tokens of a test step, mean over steps and layers")
    yield Metric("device_slots", "slots", "lower", "exact", "experts of a layer on each device")
    yield Metric(
        "moved_experts", "experts", "lower", "routed", "slots whose expert contiguous placement has on a different device"
    )
    yield Metric("moved_bytes", "bytes", "lower", "routed", "bytes of moved_experts")
    yield Metric("move_time", "ns", "lower", "timed", "time until the weights of all experts are on their ranks")
    yield Metric(
        "payoff_steps",
        "steps",
        "lower",
        "timed",
        "move_time / (step_latency under contiguous placement - step_latency); absent if that is not positive",
    )
    yield Metric("device_load", "fraction", "neither", "routed", "share of a test step's choices that the device serves, mean")
    for name, what in (
        ("virtual_comm", "copies of tokens that leave their device for an expert, one per choice"),
        ("virtual_comm_unique", "tokens that leave their device, once for each device that serves choices of theirs"),
        ("virtual_comm_node_unique", "tokens that leave their node, once for each node that serves choices of theirs"),
    ):
        yield Metric(f"{name}_tokens", "tokens", "lower", "routed", f"{what}, per step, one way")
        yield Metric(f"{name}_bytes", "bytes", "lower", "routed", f"bytes of {name}_tokens, both ways")
    yield Metric(
        "virtual_comm_time",
        "ns",
        "lower",
        "modelled",
        "time of a step's all-to-alls until the slowest device is done, mean over steps",
    )
    yield Metric(
        "virtual_wait_time", "ns", "lower", "modelled", "virtual_comm_time - the device's own time, mean over devices and steps"
    )
