"""What capacity costs, and how the layers use their experts."""

from collections.abc import Iterator

from moeprof.analysis.routing.load_matrix import LoadMatrix, load_matrices, pooled
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.units import format_count
from moeprof.reporters.cells import percent, times
from moeprof.reporters.documents.document import Block, Details, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.sections.tables import domain_rows, layer_rows, metric_table, scope_name

MAX_BATCHES = 24
"""Lines of a map over batches."""


def gating_table(metrics: RunMetrics, phase: str, ranks: int) -> Table:
    """Slots computed beside slots needed, and what is dropped."""
    whose = " Tokens are those of all ranks; S, capacity and slots those of each, mean over ranks." if ranks > 1 else ""
    return metric_table(
        metrics,
        ["domain"],
        {
            "tokens/step": "step_tokens",
            "S padded": "step_rows",
            "capacity": "capacity",
            "slots": ("expert_slots", format_count),
            "waste": ("waste_factor", times),
            "dropped choices": ("dropped_fraction", percent),
            "tokens hit": ("dropped_tokens", percent),
        },
        domain_rows(metrics, phase, "static"),
        f"Static gating, per layer and step: E x ceil(C x S) slots are computed where k x tokens are needed.{whose}",
    )


def layer_table(metrics: RunMetrics, phase: str) -> Table:
    """Sparsity and balance of every layer."""
    return metric_table(
        metrics,
        ["layer", "domain"],
        {
            "active": "active_experts",
            "bound": "active_bound",
            "inactive": ("inactive_fraction", percent),
            "dead": "dead_experts",
            "max/mean": ("load_max_over_mean", times),
            "CV": "load_cv",
            "hottest": ("hottest_share", percent),
            "dropped": ("dropped_fraction", percent),
            "entropy": "gate_entropy",
        },
        layer_rows(metrics, phase, "static"),
        "Experts of a layer: active in a step (mean), beside the bound min(E, k x tokens); dead in every step; load of the "
        "hottest over the mean; variation of loads; largest share of one step's choices; entropy of the gate in nats.",
    )


def expert_blocks(trace: RoutingTrace | None, metrics: RunMetrics, phase: str, ranks: int) -> Iterator[Block]:
    """The tables, and the maps that the trace gives."""
    yield Heading("Gating and experts", 3)
    yield gating_table(metrics, phase, ranks)
    yield layer_table(metrics, phase)
    if trace is None or not len(trace):
        yield Paragraph("This run has no routing trace of the phase, so there is no map of the experts' loads.")
        return
    matrices = load_matrices(trace)
    yield load_map(trace, matrices)
    yield Details("loads over batches, layer by layer", [batch_map(layer, matrices) for layer in trace.header.layers])
    yield Details("fairseq's counters", [fairseq_table(metrics, phase)])


def load_map(trace: RoutingTrace, matrices: list[LoadMatrix]) -> HeatMap:
    """Share of the choices that each expert takes: a line per layer and domain."""
    lines: list[LoadMatrix] = []
    for layer in trace.header.layers:
        own = [matrix for matrix in matrices if matrix.layer == layer]
        lines += [*([pooled(own)] if len(own) > 1 else []), *own]
    top, experts = max(float(matrix.shares_E.max()) for matrix in lines), trace.header.num_experts
    return HeatMap(
        f"Load of the {experts} experts, by id",
        [f"{matrix.layer} {scope_name(matrix.domain)}" for matrix in lines],
        [matrix.shares_E.tolist() for matrix in lines],
        top,
        f"Full shade: {percent(top)} of a line's choices on one expert; even is {percent(1 / experts)}. Blank: never used.",
    )


def batch_map(layer: str, matrices: list[LoadMatrix]) -> HeatMap:
    """Share of each step's choices that an expert takes (paper figure 6): a line per step, a few of each domain."""
    own = [matrix for matrix in matrices if matrix.layer == layer]
    each = max(1, MAX_BATCHES // max(len(own), 1))
    lines = [
        (f"{matrix.domain} {step}", matrix.shares_EB[:, step].tolist())
        for matrix in own
        for step in range(min(each, matrix.num_steps))
    ]
    top = max((max(values) for _, values in lines), default=0.0)
    caption = f"Full shade: {percent(top)} of a step's choices. Vertical lines are experts that stay hot."
    return HeatMap(
        f"Layer {layer}: experts over steps", [label for label, _ in lines], [values for _, values in lines], top, caption
    )


def fairseq_table(metrics: RunMetrics, phase: str) -> Table:
    """The counters that fairseq logs, under its names."""
    names = ("overflow_expert1", "overflow_expert2", "unused_expert1_count", "unused_expert2_count", "entropy_gating")
    balance = [f"expert{choice}_balance_{end}" for choice in (1, 2) for end in ("top", "bottom")]
    caption = "overflow and balance in percent of tokens, entropy in nats; means over steps."
    return metric_table(
        metrics, ["layer", "domain"], {name: name for name in (*names, *balance)}, layer_rows(metrics, phase, "static"), caption
    )
