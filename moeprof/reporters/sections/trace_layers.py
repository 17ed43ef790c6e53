"""Tables with a row per layer of a trace: loads, and locality, each beside its value by chance."""

from collections.abc import Iterator, Mapping

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.reporters.cells import percent, times
from moeprof.reporters.documents.document import Block, Paragraph, Table
from moeprof.reporters.sections.tables import MetricColumn, Row, layer_rows, metric_table, scopes

LOADS: Mapping[str, MetricColumn] = {
    "active": "active_experts",
    "by chance": "active_by_chance",
    "bound": "active_bound",
    "inactive": ("inactive_fraction", percent),
    "dead": "dead_experts",
    "max/mean": ("load_max_over_mean", times),
    "CV": "load_cv",
    "entropy": "load_entropy",
    "hottest": ("hottest_share", percent),
}
COUNTED = ("dead", "max/mean", "CV", "entropy")
"""The columns that totals allow."""

LOCALITY: Mapping[str, MetricColumn] = {
    "Jaccard": "active_jaccard",
    "by chance": "active_jaccard_by_chance",
    "overlap": ("active_overlap", percent),
    "shuffled": ("active_overlap_shuffled", percent),
    "chance": ("active_overlap_by_chance", percent),
    "reuse": "reuse_distance",
    "if even": "reuse_distance_by_chance",
}


def rows_of(metrics: RunMetrics, phase: str) -> tuple[list[str], list[Row]]:
    """The labels of the rows of all layers, and the rows: without the domain if there is only one."""
    rows = layer_rows(metrics, phase, metrics.baseline, "load_entropy")
    if len(scopes(metrics, phase)) > 1:
        return ["layer", "domain"], rows
    return ["layer"], [Row(row.labels[:1], row.address) for row in rows]


def load_table(metrics: RunMetrics, phase: str) -> Table:
    """Active and inactive experts, and the balance of the loads."""
    labels, rows = rows_of(metrics, phase)
    counted = not metrics.distinct("layer", "active_experts", phase=phase)
    columns = {title: column for title, column in LOADS.items() if not counted or title in COUNTED}
    one = metrics.record.trace.counted[0]
    active = (
        f"active = experts with a {one} in a step (mean), beside what is expected if all experts were equally likely, and the bound "
        f"min(E, {'k x tokens' if metrics.record.trace.top_k_known else 'choices'}); "
    )
    hottest = " hottest = largest share of one step's choices;"
    caption = (
        f"{'' if counted else active}dead = without any {one}; max/mean and CV = hottest load over the mean load, and variation of the "
        f"loads;{'' if counted else hottest} entropy of the loads in nats."
    )
    return metric_table(metrics, labels, columns, rows, caption)


def locality_table(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """How much consecutive steps share, beside random sets and a random order."""
    if not metrics.distinct("layer", "active_jaccard", phase=phase):
        yield Paragraph("Locality needs two consecutive steps of a domain; this phase has none.")
        return
    labels, rows = rows_of(metrics, phase)
    caption = (
        "Active experts of consecutive steps. Jaccard = Jaccard index of the two sets; overlap = share of a step's experts that the step "
        "before used; reuse = steps until an expert is used again (median). By chance, chance and if even: expected if every step drew "
        "its experts evenly; shuffled: if the recorded steps were in random order, so that only loads matter."
    )
    yield metric_table(metrics, labels, LOCALITY, rows, caption)
