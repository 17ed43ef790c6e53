"""Metrics of the characterization of a trace, in addition to those of every recorded routing."""

from collections.abc import Iterator

from moeprof.records.metrics.metric import Metric


def trace_metrics() -> Iterator[Metric]:
    """What is expected by chance, how many experts a number of tokens reaches, and what can be predicted."""
    yield Metric("sequences", "sequences", "neither", "exact", "different sequences of all domains and ranks")
    yield Metric("load_entropy", "nats", "higher", "routed", "entropy of the experts' shares of all choices; even is ln E")
    yield Metric("active_by_chance", "experts", "neither", "exact", "E (1 - (1 - top_k / E)^tokens), mean over steps")
    yield Metric(
        "active_jaccard_by_chance",
        "fraction",
        "neither",
        "routed",
        "active_jaccard expected if steps drew their experts evenly",
    )
    yield Metric(
        "active_overlap_shuffled", "fraction", "neither", "routed", "active_overlap expected if the steps were in random order"
    )
    yield Metric(
        "reuse_distance_by_chance", "steps", "neither", "routed", "reuse_distance expected if steps drew their experts evenly"
    )
    yield from distinct_metrics()
    yield from hot_set_metrics()
    share = "share of a step's active experts among the c of the point"
    yield Metric(
        "step_coverage",
        "fraction",
        "neither",
        "routed",
        f"{share}, mean over steps; category first half: chosen there, for the steps of the second; run: chosen in all steps; "
        "prompt: chosen in the sequence's own prompt, mean over tokens",
    )
    yield Metric("step_coverage_by_chance", "fraction", "neither", "exact", f"{share} if those were any: c / E")


def distinct_metrics() -> Iterator[Metric]:
    """Metrics at the point `tokens=N`: groups of N tokens."""
    group = "experts that N consecutive tokens of a domain choose"
    yield Metric("distinct_experts", "experts", "neither", "routed", f"distinct {group}, mean over groups")
    yield Metric("distinct_experts_by_chance", "experts", "neither", "exact", "E (1 - (1 - top_k / E)^N): all equally likely")
    yield Metric(
        "distinct_experts_shuffled",
        "experts",
        "neither",
        "routed",
        "distinct_experts expected if the tokens of the domain were in random order",
    )


def hot_set_metrics() -> Iterator[Metric]:
    """Metrics of a set of experts chosen on one part of a trace, and judged on another."""
    share = Metric(
        "hot_set_share",
        "fraction",
        "neither",
        "routed",
        "share of the choices of each domain's later tokens at the c experts of the point that the earlier half chose most; "
        "with a category: chosen in that domain",
    )
    yield share
    for end, which in (("low", "lower"), ("high", "upper")):
        what = f"{which} end of hot_set_share's 95% interval (bootstrap over blocks of tokens)"
        yield Metric(f"hot_set_share_{end}", "fraction", "neither", "routed", what)
    yield Metric("hot_set_by_chance", "fraction", "neither", "exact", "hot_set_share expected of any c experts: c / E")
    yield Metric(
        "hot_set_tokens", "tokens", "neither", "exact", "later tokens that hot_set_share was judged on, most of any layer"
    )
    yield Metric(
        "hot_set_size", "experts", "neither", "routed", "fewest experts, hottest first, whose hot_set_share reaches the percent"
    )
