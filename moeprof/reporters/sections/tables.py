"""Tables of metrics: a row per address, a column per metric."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.row import Address
from moeprof.records.units import format_significant
from moeprof.reporters.cells import MISSING, Write, cell
from moeprof.reporters.documents.document import Table

MetricColumn = str | tuple[str, Write]
"""The metric of a column: with three significant digits, or formatted by the function."""


class Row(NamedTuple):
    """The labels of a row, and the address of its numbers."""

    labels: Sequence[str]
    address: Address


def metric_table(
    metrics: RunMetrics, labels: Sequence[str], columns: Mapping[str, MetricColumn], rows: Sequence[Row], caption: str
) -> Table:
    """A table of metrics; a number that the run does not have is a dash."""
    written = {title: (column, format_significant) if isinstance(column, str) else column for title, column in columns.items()}
    cells = [
        [*names, *(cell(metrics.or_none(metric, **address), write) for metric, write in written.values())]
        for names, address in rows
    ]
    return Table([*labels, *columns], cells, labels=len(labels), caption=caption)


def scope_name(domain: str) -> str:
    """The label of a domain's row; `all` for all domains together."""
    return domain or "all"


def scopes(metrics: RunMetrics, phase: str) -> list[str]:
    """All domains together, and each of them if there are several."""
    domains = metrics.domains(phase)
    return ["", *domains] if len(domains) > 1 else [""]


def domain_rows(metrics: RunMetrics, phase: str, variant: str) -> list[Row]:
    """A row for all domains together, and one for each of several."""
    return [
        Row([scope_name(domain)], Address(phase=phase, domain=domain, variant=variant)) for domain in scopes(metrics, phase)
    ]


def layer_rows(metrics: RunMetrics, phase: str, variant: str, metric: str = "active_experts") -> list[Row]:
    """The rows of `domain_rows` for every layer that has a metric."""
    return [
        Row([layer, scope_name(domain)], Address(phase=phase, domain=domain, layer=layer, variant=variant))
        for layer in metrics.distinct("layer", metric, phase=phase)
        for domain in scopes(metrics, phase)
    ]


def with_values(columns: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The columns in which any cell has a value."""
    return {title: cells for title, cells in columns.items() if any(text != MISSING for text in cells)}
