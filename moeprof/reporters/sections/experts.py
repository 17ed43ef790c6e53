"""Capacity, dropped tokens, and the loads of the experts in every layer."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, pooled
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.recipe.dispatch import dispatch_of
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.units import format_count
from moeprof.reporters.cells import percent, times
from moeprof.reporters.documents.document import Block, Details, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.sections.tables import domain_rows, layer_rows, metric_table, scope_name

MAX_BATCHES = 24
"""The maximum number of rows of a map over steps."""


def gating_table(metrics: RunMetrics, phase: str, ranks: int) -> Table:
    """Capacity slots, required slots and dropped tokens."""
    fixed = dispatch_of(metrics.baseline).capacity == "fraction"
    rule = "E x ceil(C x S) slots are computed" if fixed else "rows that the experts compute, those of padding included"
    computed = f"{dispatch_of(metrics.baseline).title.capitalize()}, per layer and step: {rule},"
    per_rank = " Tokens are those of all ranks; S, capacity and slots are per rank (mean)." if ranks > 1 else ""
    return metric_table(
        metrics,
        ["domain"],
        {
            "tokens/step": "step_tokens",
            "S (padded)": "step_rows",
            "capacity": "capacity",
            "slots": ("expert_slots", format_count),
            "waste": ("waste_factor", times),
            "dropped choices": ("dropped_fraction", percent),
            "dropped tokens": ("dropped_tokens", percent),
        },
        domain_rows(metrics, phase, metrics.baseline),
        f"{computed} k x tokens are required (waste = the ratio).{per_rank}",
    )


def layer_table(metrics: RunMetrics, phase: str) -> Table:
    """Sparsity and load balance of every layer."""
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
        layer_rows(metrics, phase, metrics.baseline),
        "active = experts with a token in a step (mean), at most bound = min(E, k x tokens); dead = without a token in every step; "
        "max/mean and CV = hottest load over the mean load, and variation of the loads; hottest = largest share of one step's choices; "
        "entropy of the gate in nats.",
    )


def expert_blocks(trace: RoutingTrace | None, metrics: RunMetrics, phase: str, ranks: int) -> Iterator[Block]:
    """The tables, and the heat maps if the run has a routing trace."""
    yield Heading("Gating and experts", 3)
    yield gating_table(metrics, phase, ranks)
    yield layer_table(metrics, phase)
    if trace is None or not len(trace):
        yield Paragraph("No load maps: this run has no routing trace of the phase.")
        return
    layers = list(layer_matrices(trace))
    yield load_map(layers)
    yield batch_maps(layers)
    yield Details("fairseq's counters", [fairseq_table(metrics, phase)])


def load_map(layers: Sequence[Sequence[LoadMatrix]]) -> HeatMap:
    """Each expert's share of the choices, with a row per layer and domain."""
    lines: list[LoadMatrix] = []
    for own in layers:
        lines += [*([pooled(own)] if len(own) > 1 else []), *own]
    top, experts = max(float(matrix.shares_E.max()) for matrix in lines), lines[0].num_experts
    return HeatMap(
        f"Load of the {experts} experts, by id",
        [f"{matrix.layer} {scope_name(matrix.domain)}" for matrix in lines],
        [matrix.shares_E.tolist() for matrix in lines],
        top,
        f"Even share: {percent(1 / experts)} of a row; the largest is {percent(top)}.",
        1 / experts,
    )


def batch_maps(layers: Sequence[Sequence[LoadMatrix]]) -> Details:
    """The maps over steps of all layers."""
    return Details("expert loads over steps, layer by layer", [batch_map(own) for own in layers])


def batch_map(own: Sequence[LoadMatrix]) -> HeatMap:
    """Each expert's share of a step's choices (paper figure 6) in one layer, with a row per step and a few steps per domain."""
    each = max(1, MAX_BATCHES // len(own))
    lines = [
        (f"{matrix.domain} {step}", shares.tolist()) for matrix in own for step, shares in enumerate(matrix.first_shares(each))
    ]
    top = max((max(values) for _, values in lines), default=0.0)
    shown = min(each, max(matrix.num_steps for matrix in own))
    cut = f" Shown: the first {shown} steps of each domain." if any(matrix.num_steps > each for matrix in own) else ""
    even = 1 / own[0].num_experts
    caption = (
        f"Even share: {percent(even)} of a step; the largest is {percent(top)}. Vertical lines are experts that stay hot.{cut}"
    )
    return HeatMap(
        f"Layer {own[0].layer}: experts over steps",
        [label for label, _ in lines],
        [values for _, values in lines],
        top,
        caption,
        even,
    )


def fairseq_table(metrics: RunMetrics, phase: str) -> Table:
    """The counters that fairseq logs, under their names in fairseq."""
    names = ("overflow_expert1", "overflow_expert2", "unused_expert1_count", "unused_expert2_count", "entropy_gating")
    balance = [f"expert{choice}_balance_{end}" for choice in (1, 2) for end in ("top", "bottom")]
    caption = "Overflow and balance in percent of tokens, entropy in nats; means over steps."
    return metric_table(
        metrics,
        ["layer", "domain"],
        {name: name for name in (*names, *balance)},
        layer_rows(metrics, phase, metrics.baseline),
        caption,
    )
